//! `#[input(NAME: KIND[DIM, ..], ..)]` and `#[output(..)]`.

use crate::attribute::{is_name, kebab};
use crate::json::{Json, quoted};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitFloat, LitInt, LitStr, Result, Token, bracketed};

const KINDS: &[&str] = &[
    "pixels",
    "scores",
    "picks",
    "features",
    "attention",
    "bag",
    "predictions",
    "table",
];

pub struct Port {
    pub name: String,
    pub kind: Ident,
    shape: Vec<Dim>,
    mpp: Option<Dim>,
    many: bool,
    optional: bool,
    doc: String,
}

/// What the dimensions of a kind's rows are, in words.
fn form(kind: &str) -> &'static [&'static str] {
    match kind {
        "pixels" => &["height", "width", "3"],
        "scores" => &["height", "width", "classes"],
        "picks" => &["height", "width"],
        "features" | "bag" => &["numbers"],
        "predictions" => &["classes"],
        _ => &[],
    }
}

impl Port {
    /// That its rows have the shape of their kind. An input without one takes rows of any size; a pick has no numbers of its own.
    pub fn check_shape(&self, is_output: bool) -> Result<()> {
        let (kind, has) = (self.kind.to_string(), self.shape.len());
        let form = form(&kind);
        let open = has == 0 && (!is_output || kind == "picks");
        if has == form.len() || open || (kind == "picks" && has == 3) {
            return Ok(());
        }
        Err(Error::new(
            self.kind.span(),
            format!(
                "rows of {kind} have the shape [{}], and this has {has} dimensions",
                form.join(", ")
            ),
        ))
    }
}

/// A dimension, and where it stands.
pub struct Dim {
    /// As JSON.
    json: String,
    /// The parameter that it names.
    pub param: Option<LitStr>,
}

impl Parse for Dim {
    fn parse(input: ParseStream) -> Result<Dim> {
        let look = input.lookahead1();
        if look.peek(LitInt) {
            let number: LitInt = input.parse()?;
            number.base10_parse::<u32>()?;
            return Ok(Dim {
                json: number.base10_digits().into(),
                param: None,
            });
        }
        if look.peek(LitFloat) {
            let number: LitFloat = input.parse()?;
            number.base10_parse::<f64>()?;
            return Ok(Dim {
                json: number.base10_digits().into(),
                param: None,
            });
        }
        if look.peek(LitStr) {
            let text: LitStr = input.parse()?;
            let json = quoted(&text.value());
            return Ok(Dim {
                json,
                param: text.value().starts_with('$').then_some(text),
            });
        }
        if input.peek(Ident::peek_any) {
            return Ok(Dim {
                json: quoted(&Ident::parse_any(input)?.to_string()),
                param: None,
            });
        }
        Err(Error::new(
            input.span(),
            "expected a dimension: a number, a name, or \"$param\"",
        ))
    }
}

impl Parse for Port {
    fn parse(input: ParseStream) -> Result<Port> {
        let name = if input.peek(LitStr) {
            let text: LitStr = input.parse()?;
            crate::attribute::check_name(&text.value(), &text)?;
            text.value()
        } else {
            let ident = Ident::parse_any(input)?;
            let name = kebab(&ident.to_string());
            if !is_name(&name) {
                return Err(Error::new(
                    ident.span(),
                    format!("{name:?} is not of the form [a-z][a-z0-9-]*"),
                ));
            }
            name
        };
        input.parse::<Token![:]>()?;
        let kind: Ident = input.parse()?;
        if !KINDS.contains(&kind.to_string().as_str()) {
            return Err(Error::new(
                kind.span(),
                format!(
                    "no kind of port `{kind}`: it is one of {}",
                    KINDS.join(", ")
                ),
            ));
        }
        let mut port = Port {
            name,
            kind,
            shape: Vec::new(),
            mpp: None,
            many: false,
            optional: false,
            doc: String::new(),
        };
        if input.peek(syn::token::Bracket) {
            let dims;
            bracketed!(dims in input);
            port.shape = dims
                .parse_terminated(Dim::parse, Token![,])?
                .into_iter()
                .collect();
        }
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "doc" => {
                    input.parse::<Token![=]>()?;
                    // One line, as the manifest wants it.
                    let doc = input.parse::<LitStr>()?.value();
                    port.doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
                }
                "mpp"
                    if ["pixels", "scores", "picks"]
                        .iter()
                        .any(|kind| port.kind == kind) =>
                {
                    input.parse::<Token![=]>()?;
                    port.mpp = Some(input.parse()?);
                }
                "mpp" => {
                    return Err(Error::new(
                        key.span(),
                        "only pixels, scores and picks have an `mpp`",
                    ));
                }
                "many" => port.many = true,
                "optional" => port.optional = true,
                other => {
                    return Err(Error::new(
                        key.span(),
                        format!("no `{other}` of a port: it takes doc, mpp, many, optional"),
                    ));
                }
            }
        }
        Ok(port)
    }
}

impl Port {
    pub fn write(&self, json: &mut Json) {
        json.raw("{\"name\":")
            .text(&self.name)
            .member("kind", &self.kind.to_string());
        if !self.shape.is_empty() {
            let dims: Vec<&str> = self.shape.iter().map(|dim| dim.json.as_str()).collect();
            json.raw(&format!(",\"shape\":[{}]", dims.join(",")));
        }
        if let Some(mpp) = &self.mpp {
            json.raw(&format!(",\"mpp\":{}", mpp.json));
        }
        for (key, value) in [("many", self.many), ("optional", self.optional)] {
            if value {
                json.raw(&format!(",\"{key}\":true"));
            }
        }
        if !self.doc.is_empty() {
            json.member("doc", &self.doc);
        }
        json.raw("}");
    }

    /// Parameters that it speaks of.
    pub fn params(&self) -> impl Iterator<Item = &LitStr> {
        self.shape
            .iter()
            .chain(&self.mpp)
            .filter_map(|dim| dim.param.as_ref())
    }
}
