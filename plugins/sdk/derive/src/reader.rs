//! `#[derive(Reader)]`.

use crate::attribute::{Doc, check_name, one};
use crate::json::{Json, quoted};
use proc_macro2::{Literal, TokenStream};
use quote::{quote, quote_spanned};
use std::ffi::CString;
use syn::punctuated::Punctuated;
use syn::{DeriveInput, Error, LitInt, LitStr, Result, Token, bracketed, parenthesized};

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "a reader has no generic parameters: a plugin exports whole types",
        ));
    }
    let attribute = one(&input.attrs, "reader", || {
        Error::new(
            name.span(),
            "it needs #[reader(id = \"NAME\", extensions = [\"..\"])]",
        )
    })?;
    let (mut id, mut extensions): (Option<LitStr>, Vec<LitStr>) = (None, Vec::new());
    let (mut parallel, mut spoils) = (false, false);
    let mut cache = String::new();
    attribute.parse_nested_meta(|meta| {
        if meta.path.is_ident("id") {
            id = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("extensions") {
            let list;
            let value = meta.value()?;
            bracketed!(list in value);
            extensions = Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?
                .into_iter()
                .collect();
        } else if meta.path.is_ident("cache") {
            let list;
            parenthesized!(list in meta.input);
            let bytes: LitInt = list.parse()?;
            list.parse::<Token![,]>()?;
            let variable: LitStr = list.parse()?;
            cache = format!(
                ",\"cache\":{{\"bytes\":{},\"variable\":{}}}",
                bytes.base10_parse::<u64>()?,
                quoted(&variable.value())
            );
        } else if meta.path.is_ident("parallel") {
            parallel = true;
        } else if meta.path.is_ident("spoils") {
            spoils = true;
        } else {
            return Err(meta.error(
                "no such thing of a reader: it takes id, extensions, cache, parallel, spoils",
            ));
        }
        Ok(())
    })?;
    let id = id.ok_or_else(|| Error::new_spanned(attribute, "it needs id = \"NAME\""))?;
    check_name(&id.value(), &id)?;
    for extension in &extensions {
        let text = extension.value();
        if text.starts_with('.') || text.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(Error::new(
                extension.span(),
                "an extension is written without its dot, in lower case",
            ));
        }
    }
    let doc = Doc::of(&input.attrs);
    if doc.summary.is_empty() {
        return Err(Error::new(
            name.span(),
            "a reader needs a doc comment, whose first paragraph is its line in lists",
        ));
    }
    let mut json = Json::default();
    let list: Vec<String> = extensions.iter().map(|it| quoted(&it.value())).collect();
    json.raw("{\"id\":")
        .text(&id.value())
        .member("summary", &doc.summary)
        .raw(&format!(",\"extensions\":[{}]{cache}}}", list.join(",")));
    let manifest = json.into_pieces();
    let c_id =
        CString::new(id.value()).map_err(|_| Error::new(id.span(), "an id has no NUL in it"))?;
    let c_id = Literal::c_string(&c_id);
    let table = quote_spanned!(name.span()=> ::weir_plugin::export::reader::<#name>());
    Ok(quote! {
        impl ::weir_plugin::export::DeclaredReader for #name {
            const ID: &'static ::core::ffi::CStr = #c_id;
            const MANIFEST: &'static [&'static str] = #manifest;
            const PARALLEL: bool = #parallel;
            const SPOILS: bool = #spoils;
            const TABLE: ::weir_plugin::abi::reader::Reader = #table;
        }
    })
}
