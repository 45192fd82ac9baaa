//! `#[derive(Stage)]`.

use crate::attribute::{Doc, check_name, one};
use crate::json::Json;
use crate::param::Param;
use crate::port::Port;
use proc_macro2::{Literal, TokenStream};
use quote::{quote, quote_spanned};
use std::ffi::CString;
use syn::spanned::Spanned as _;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitInt, LitStr, Member, Result};

/// What `#[stage(..)]` says.
struct Head {
    kind: Ident,
    id: LitStr,
    concurrency: &'static str,
    deterministic: bool,
    batch_only: bool,
    deliver: Option<String>,
    place: Option<String>,
    state: Vec<(&'static str, u64)>,
    /// The parameter that says what an instance allocates.
    memory: Option<LitStr>,
    example: Option<String>,
}

const KINDS: &[&str] = &["source", "map", "filter", "reduce", "sink"];

impl Head {
    fn read(attribute: &Attribute) -> Result<Head> {
        let (mut kind, mut id, mut concurrency) = (None, None, None);
        let (mut deterministic, mut batch_only) = (false, None);
        let (mut deliver, mut place, mut example) = (None, None, None);
        let (mut state, mut memory) = (Vec::new(), None);
        attribute.parse_nested_meta(|meta| {
            let Some(key) = meta.path.get_ident() else {
                return Err(meta.error("expected a word"));
            };
            let word = key.to_string();
            match word.as_str() {
                word if KINDS.contains(&word) => {
                    if kind.replace(key.clone()).is_some() {
                        return Err(meta.error("a stage has one kind"));
                    }
                }
                "id" => id = Some(meta.value()?.parse::<LitStr>()?),
                "parallel" => concurrency = Some(("parallel", key.clone())),
                "serial" => concurrency = Some(("serial", key.clone())),
                "per_worker" => concurrency = Some(("per-worker", key.clone())),
                "deterministic" => deterministic = true,
                "batch_only" => batch_only = Some(key.clone()),
                "deliver" => deliver = Some(word_of(&meta, &["arrival", "generation"])?),
                "place" => place = Some(word_of(&meta, &["home", "first"])?),
                "example" => example = Some(meta.value()?.parse::<LitStr>()?.value()),
                "memory" => memory = Some(meta.value()?.parse::<LitStr>()?),
                "state" => meta.parse_nested_meta(|part| {
                    let name = ["slide", "tile", "feature"]
                        .into_iter()
                        .find(|name| part.path.is_ident(name))
                        .ok_or_else(|| part.error("a stage's state is of slide, tile and feature"))?;
                    state.push((name, part.value()?.parse::<LitInt>()?.base10_parse::<u64>()?));
                    Ok(())
                })?,
                _ => {
                    return Err(meta.error(
                        "no such thing of a stage: it takes a kind (source, map, filter, reduce, sink), id, parallel, serial, \
                         per_worker, deterministic, batch_only, deliver, place, state, memory, example",
                    ));
                }
            }
            Ok(())
        })?;
        let kind = kind.ok_or_else(|| {
            Error::new_spanned(attribute, "which kind is it: source, map, filter, reduce or sink? as #[stage(map, id = \"..\")]")
        })?;
        let id = id.ok_or_else(|| {
            Error::new_spanned(
                attribute,
                "it needs id = \"NAMESPACE.NAME\", where NAMESPACE is the plugin's name",
            )
        })?;
        let text = id.value();
        let (namespace, name) = text.split_once('.').ok_or_else(|| {
            Error::new(
                id.span(),
                "an id is NAMESPACE.NAME, where NAMESPACE is the plugin's name",
            )
        })?;
        check_name(namespace, &id)?;
        check_name(name, &id)?;
        if let Some(word) = batch_only.as_ref()
            && kind != "reduce"
        {
            return Err(Error::new(word.span(), "`batch_only` is for a reduce"));
        }
        let shares = kind == "map" || kind == "filter" || kind == "source";
        let concurrency = match concurrency {
            Some(("parallel", word)) if !shares => {
                return Err(Error::new(
                    word.span(),
                    format!("a {kind} keeps a slide's state, so its calls come one at a time"),
                ));
            }
            Some((name, _)) => name,
            None if shares => "parallel",
            None => "serial",
        };
        Ok(Head {
            kind,
            id,
            concurrency,
            deterministic,
            batch_only: batch_only.is_some(),
            deliver,
            place,
            state,
            memory,
            example,
        })
    }
}

fn word_of(meta: &syn::meta::ParseNestedMeta<'_>, words: &[&str]) -> Result<String> {
    let text: LitStr = meta.value()?.parse()?;
    if words.contains(&text.value().as_str()) {
        return Ok(text.value());
    }
    Err(Error::new(
        text.span(),
        format!("it is one of {}", words.join(", ")),
    ))
}

pub fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "a stage has no generic parameters: a plugin exports whole types",
        ));
    }
    let Data::Struct(body) = &input.data else {
        return Err(Error::new(name.span(), "a stage is a struct"));
    };
    let attribute = one(&input.attrs, "stage", || {
        Error::new(
            name.span(),
            "it needs #[stage(KIND, id = \"NAMESPACE.NAME\")]",
        )
    })?;
    let head = Head::read(attribute)?;
    let doc = Doc::of(&input.attrs);
    if doc.summary.is_empty() {
        return Err(Error::new(
            name.span(),
            "a stage needs a doc comment, whose first paragraph is its line in lists",
        ));
    }
    let ports = |which: &str| -> Result<Vec<Port>> {
        let of = |attribute: &&Attribute| attribute.path().is_ident(which);
        input
            .attrs
            .iter()
            .filter(of)
            .map(Attribute::parse_args)
            .collect()
    };
    let (ins, outs) = (ports("input")?, ports("output")?);
    check_ports(&head.kind, &ins, &outs)?;

    let mut params = Vec::new();
    let mut fields = Vec::new();
    for (i, field) in body.fields.iter().enumerate() {
        let member = match &field.ident {
            Some(ident) => Member::Named(ident.clone()),
            None => Member::Unnamed(i.into()),
        };
        let ty = &field.ty;
        match Param::of(field)? {
            Some(param) => {
                let (place, key) = (params.len(), &param.name);
                fields.push(quote!(#member: values.get::<#ty>(#place, #key)?));
                params.push(param);
            }
            None => {
                let begin =
                    quote_spanned!(ty.span()=> <#ty as ::core::default::Default>::default());
                fields.push(quote!(#member: #begin));
            }
        }
    }
    let made = match body.fields {
        Fields::Unit => quote!(#name),
        _ => quote!(#name { #(#fields),* }),
    };
    for at in ins.iter().chain(&outs).flat_map(Port::params) {
        let text = at.value();
        if !params.iter().any(|param| text[1..] == param.name) {
            return Err(Error::new(
                at.span(),
                format!("no parameter of this stage is called `{}`", &text[1..]),
            ));
        }
    }

    if let Some(memory) = &head.memory {
        let text = memory.value();
        if !params.iter().any(|param| param.name == text) {
            return Err(Error::new(
                memory.span(),
                format!("no parameter of this stage is called `{text}`"),
            ));
        }
    }

    let manifest = manifest(&head, &doc, &params, &ins, &outs);
    let checks = params.iter().map(Param::checks);
    let id = CString::new(head.id.value())
        .map_err(|_| Error::new(head.id.span(), "an id has no NUL in it"))?;
    let id = Literal::c_string(&id);
    let kind = &head.kind;
    let at_end = (kind == "sink").then(|| {
        quote!({
            use ::weir_plugin::export::NothingAtEnd as _;
            ::weir_plugin::export::AtEnd::<#name>::FINISH
        })
    });
    // Spanned at the kind, so that a trait that is not implemented is told there.
    let table = quote_spanned!(kind.span()=> ::weir_plugin::export::#kind::<#name>(#at_end));
    let names = |ports: &[Port]| {
        ports
            .iter()
            .map(|port| port.name.clone())
            .collect::<Vec<_>>()
    };
    let (in_names, out_names) = (names(&ins), names(&outs));
    let (parallel, deterministic, batch_only) = (
        head.concurrency == "parallel",
        head.deterministic,
        head.batch_only,
    );
    let count = params.len();
    let values = if count == 0 {
        quote!(_values)
    } else {
        quote!(values)
    };
    Ok(quote! {
        const _: () = { #(#checks)* };
        impl ::weir_plugin::export::Declared for #name {
            const ID: &'static ::core::ffi::CStr = #id;
            const MANIFEST: &'static [&'static str] = #manifest;
            const PARALLEL: bool = #parallel;
            const DETERMINISTIC: bool = #deterministic;
            const BATCH_ONLY: bool = #batch_only;
            const INS: &'static [&'static str] = &[#(#in_names),*];
            const OUTS: &'static [&'static str] = &[#(#out_names),*];
            const PARAMS: usize = #count;
            const TABLE: ::weir_plugin::abi::stage::Stage = #table;
            fn from_values(#values: &::weir_plugin::param::Values<'_>) -> ::weir_plugin::Result<Self> {
                ::core::result::Result::Ok(#made)
            }
        }
    })
}

fn check_ports(kind: &Ident, ins: &[Port], outs: &[Port]) -> Result<()> {
    let (fits, has) = match kind.to_string().as_str() {
        "source" => (
            ins.is_empty() && outs.len() == 1,
            "no #[input] and one #[output]",
        ),
        "filter" => (
            ins.len() == 1 && outs.len() == 1 && ins[0].kind == outs[0].kind,
            "one #[input] and one #[output] of the same kind",
        ),
        "sink" => (
            !ins.is_empty() && outs.is_empty(),
            "at least one #[input] and no #[output]",
        ),
        _ => (
            !ins.is_empty() && !outs.is_empty(),
            "at least one #[input] and one #[output]",
        ),
    };
    if !fits {
        return Err(Error::new(
            kind.span(),
            format!("a {kind} has {has}, as #[input(tiles: pixels)]"),
        ));
    }
    for port in ins {
        port.check_shape(false)?;
    }
    for port in outs {
        port.check_shape(true)?;
    }
    for ports in [ins, outs] {
        for (i, port) in ports.iter().enumerate() {
            if ports[..i].iter().any(|other| other.name == port.name) {
                return Err(Error::new(
                    port.kind.span(),
                    format!("port `{}` stands here twice", port.name),
                ));
            }
        }
    }
    Ok(())
}

fn manifest(head: &Head, doc: &Doc, params: &[Param], ins: &[Port], outs: &[Port]) -> TokenStream {
    let mut json = Json::default();
    json.raw("{\"id\":")
        .text(&head.id.value())
        .member("summary", &doc.summary)
        .member("rows", &head.kind.to_string())
        .member("concurrency", head.concurrency);
    if !doc.rest.is_empty() {
        json.member("doc", &doc.rest);
    }
    if let Some(deliver) = &head.deliver {
        json.member("deliver", deliver);
    }
    if let Some(place) = &head.place {
        json.member("place", place);
    }
    if head.batch_only {
        json.raw(",\"batch-only\":true");
    }
    if !head.state.is_empty() {
        let parts: Vec<String> = head
            .state
            .iter()
            .map(|(name, bytes)| format!("\"{name}\":{bytes}"))
            .collect();
        json.raw(&format!(",\"state\":{{{}}}", parts.join(",")));
    }
    if let Some(memory) = &head.memory {
        json.member("memory", &memory.value());
    }
    if let Some(example) = &head.example {
        json.member("example", example);
    }
    list(&mut json, "params", params, Param::write);
    list(&mut json, "in", ins, Port::write);
    list(&mut json, "out", outs, Port::write);
    json.raw("}");
    json.into_pieces()
}

fn list<T>(json: &mut Json, key: &str, items: &[T], write: impl Fn(&T, &mut Json)) {
    json.raw(&format!(",\"{key}\":["));
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            json.raw(",");
        }
        write(item, json);
    }
    json.raw("]");
}
