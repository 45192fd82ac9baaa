//! `#[derive(Choice)]`.

use crate::attribute::kebab;
use crate::json::quoted;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Result};

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    let Data::Enum(body) = &input.data else {
        return Err(Error::new(name.span(), "a choice is an enum"));
    };
    if body.variants.is_empty() {
        return Err(Error::new(name.span(), "a choice has at least one variant"));
    }
    let (mut texts, mut variants) = (Vec::new(), Vec::new());
    for variant in &body.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(
                variant,
                "a choice's variant has no fields",
            ));
        }
        let mut text = kebab(&variant.ident.to_string());
        for attribute in variant
            .attrs
            .iter()
            .filter(|it| it.path().is_ident("choice"))
        {
            text = attribute.parse_args::<LitStr>()?.value();
        }
        if texts.contains(&text) {
            return Err(Error::new_spanned(
                variant,
                format!("{text:?} stands here twice"),
            ));
        }
        texts.push(text);
        variants.push(&variant.ident);
    }
    let list: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    let values = format!(",\"values\":[{}]", list.join(","));
    Ok(quote! {
        impl ::weir_plugin::param::Param for #name {
            const KIND: &'static str = "choice";
            const VALUES: &'static str = #values;
            type Literal = &'static str;
            type Bound = ::weir_plugin::param::NoBound;
            fn from_value(value: ::weir_plugin::param::Value<'_>) -> ::core::result::Result<Self, ::std::string::String> {
                match value.text()? {
                    #(#texts => ::core::result::Result::Ok(#name::#variants),)*
                    other => ::core::result::Result::Err(::std::format!("{other:?} is none of its values")),
                }
            }
        }
    })
}
