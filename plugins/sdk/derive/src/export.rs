//! `export! { name: "..", stages: [..], readers: [..], describe: .. }`.

use crate::attribute::check_name;
use crate::json::quoted;
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Error, Ident, LitStr, Path, Result, Token, bracketed};

#[derive(Default)]
pub struct Export {
    name: Option<LitStr>,
    summary: Option<LitStr>,
    licence: Option<LitStr>,
    stages: Vec<Path>,
    readers: Vec<Path>,
    describe: Option<Path>,
}

impl Parse for Export {
    fn parse(input: ParseStream) -> Result<Export> {
        let mut export = Export::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![:]>()?;
            match key.to_string().as_str() {
                "name" => export.name = Some(input.parse()?),
                "summary" => export.summary = Some(input.parse()?),
                "licence" => export.licence = Some(input.parse()?),
                "stages" => export.stages = paths(input)?,
                "readers" => export.readers = paths(input)?,
                "describe" => export.describe = Some(input.parse()?),
                other => {
                    return Err(Error::new(
                        key.span(),
                        format!(
                            "no `{other}` of a plugin: it takes name, summary, licence, stages, readers, describe"
                        ),
                    ));
                }
            }
            if input.is_empty() {
                break;
            }
            input.parse::<Token![,]>()?;
        }
        Ok(export)
    }
}

fn paths(input: ParseStream) -> Result<Vec<Path>> {
    let list;
    bracketed!(list in input);
    Ok(Punctuated::<Path, Token![,]>::parse_terminated(&list)?
        .into_iter()
        .collect())
}

pub fn expand(export: &Export) -> Result<TokenStream> {
    let here = proc_macro2::Span::call_site();
    let name = export.name.as_ref().ok_or_else(|| {
        Error::new(
            here,
            "it needs name: \"..\", the plugin's name and its stages' namespace",
        )
    })?;
    check_name(&name.value(), name)?;
    if export.stages.is_empty() && export.readers.is_empty() {
        return Err(Error::new(
            here,
            "a plugin has stages or readers: stages: [..], readers: [..]",
        ));
    }
    let of_package = |key: &str| std::env::var(key).unwrap_or_default();
    let text = |given: &Option<LitStr>, key: &str| match given {
        Some(text) => text.value(),
        None => of_package(key),
    };
    let summary = text(&export.summary, "CARGO_PKG_DESCRIPTION");
    if summary.is_empty() {
        return Err(Error::new(
            here,
            "it needs summary: \"..\", or a description in Cargo.toml",
        ));
    }
    let head = format!(
        ",\"name\":{},\"version\":{},\"summary\":{},\"licence\":{},\"stages\":[",
        quoted(&name.value()),
        quoted(&of_package("CARGO_PKG_VERSION")),
        quoted(&summary),
        quoted(&text(&export.licence, "CARGO_PKG_LICENSE")),
    );
    let (stages, readers) = (&export.stages, &export.readers);
    let listed = |paths: &[Path], declared: TokenStream| {
        let mut parts = Vec::new();
        for (i, path) in paths.iter().enumerate() {
            if i > 0 {
                parts.push(quote!(&[","]));
            }
            parts.push(
                quote_spanned!(path.span()=> <#path as ::weir_plugin::export::#declared>::MANIFEST),
            );
        }
        parts
    };
    let stage_parts = listed(stages, quote!(Declared));
    let reader_parts = listed(readers, quote!(DeclaredReader));
    let own = stages.iter().map(|path| {
        quote_spanned! {path.span()=>
            const _: () = assert!(
                ::weir_plugin::export::is_of(<#path as ::weir_plugin::export::Declared>::ID, #name),
                "the stage's id is not the plugin's name, a dot and a name"
            );
        }
    });
    let table = quote!(::weir_plugin::export::plugin(&MANIFEST, STAGES, READERS));
    let (described, table) = match &export.describe {
        None => (TokenStream::new(), table),
        Some(path) => (
            quote_spanned! {path.span()=>
                struct Described;
                impl ::weir_plugin::export::Describes for Described {
                    fn describe(
                        path: &::std::path::Path,
                        call: &::weir_plugin::Call<'_>,
                    ) -> ::weir_plugin::Result<()> {
                        #path(path, call)
                    }
                }
                static DESCRIBE: ::weir_plugin::abi::plugin::DescribeV1 =
                    ::weir_plugin::export::describe::<Described>();
                unsafe extern "C" fn extension(
                    id: *const ::core::ffi::c_char,
                ) -> *const ::core::ffi::c_void {
                    // SAFETY: as weir_plugin.h says: an id is terminated.
                    unsafe { ::weir_plugin::export::extension(id, &DESCRIBE) }
                }
            },
            quote!(::weir_plugin::export::extended(#table, extension)),
        ),
    };
    Ok(quote! {
        const _: () = {
            #described
            #(#own)*
            const PARTS: &[&[&str]] = &[
                &["{\"weir-abi\":\"", ::weir_plugin::export::ABI, "\"", #head],
                #(#stage_parts,)*
                &["],\"readers\":["],
                #(#reader_parts,)*
                &["]}\0"],
            ];
            #[used]
            #[unsafe(link_section = ".weir.manifest")]
            static MANIFEST: [u8; ::weir_plugin::export::length(PARTS)] = ::weir_plugin::export::join(PARTS);
            static STAGES: &[&::weir_plugin::abi::stage::Stage] =
                &[#(&<#stages as ::weir_plugin::export::Declared>::TABLE),*];
            static READERS: &[&::weir_plugin::abi::reader::Reader] =
                &[#(&<#readers as ::weir_plugin::export::DeclaredReader>::TABLE),*];
            static PLUGIN: ::weir_plugin::abi::plugin::Plugin = #table;

            /// The one symbol of a plugin.
            ///
            /// # Safety
            /// As weir_plugin.h says: called once, by a host of this ABI.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn weir_plugin_v1(
                host: *const ::weir_plugin::abi::host::Host,
                call: *mut ::weir_plugin::abi::Call,
                out: *mut *const ::weir_plugin::abi::plugin::Plugin,
            ) -> ::weir_plugin::abi::status::Status {
                // SAFETY: the caller's.
                unsafe { ::weir_plugin::export::enter(host, call, out, &PLUGIN) }
            }
        };
    })
}
