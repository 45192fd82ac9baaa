//! `#[param(..)]` on a field.

use crate::attribute::{Doc, check_name, kebab};
use crate::json::{Json, quoted};
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Field, Ident, Lit, LitStr, Meta, Result, Token, Type, bracketed};

/// Keys of a stage's table that are weir's own.
const RESERVED: &[&str] = &["use", "in", "run", "doc"];

pub struct Param {
    pub name: String,
    pub ty: Type,
    doc: String,
    default: Option<Literal>,
    min: Option<Literal>,
    max: Option<Literal>,
    exists: bool,
    extensions: Vec<LitStr>,
}

/// A literal: as it stands, as JSON, and as a number.
#[derive(Clone)]
struct Literal {
    tokens: TokenStream,
    json: String,
    number: Option<f64>,
    span: Span,
}

impl Parse for Literal {
    fn parse(input: ParseStream) -> Result<Literal> {
        if input.peek(syn::token::Bracket) {
            let span = input.span();
            let items;
            bracketed!(items in input);
            let items: Vec<LitStr> = items
                .parse_terminated(|item| item.parse::<LitStr>(), Token![,])?
                .into_iter()
                .collect();
            let json: Vec<String> = items.iter().map(|item| quoted(&item.value())).collect();
            return Ok(Literal {
                tokens: quote_spanned!(span=> &[#(#items),*]),
                json: format!("[{}]", json.join(",")),
                number: None,
                span,
            });
        }
        let minus: Option<Token![-]> = input.parse()?;
        let literal: Lit = input.parse().map_err(|error| {
            Error::new(
                error.span(),
                "expected a literal: a number, a text, true, false, or a list of texts",
            )
        })?;
        let sign = if minus.is_some() { "-" } else { "" };
        let (json, number) = match &literal {
            Lit::Int(it) => (
                format!("{sign}{}", it.base10_digits()),
                Some(it.base10_parse::<f64>()?),
            ),
            Lit::Float(it) => {
                let number = it.base10_parse::<f64>()?;
                // "1." is no JSON.
                (format!("{sign}{number:?}"), Some(number))
            }
            Lit::Str(it) if minus.is_none() => (quoted(&it.value()), None),
            Lit::Bool(it) if minus.is_none() => (it.value.to_string(), None),
            other => {
                return Err(Error::new(
                    other.span(),
                    "this is none of: a number, a text, true, false, a list of texts",
                ));
            }
        };
        Ok(Literal {
            tokens: quote!(#minus #literal),
            json,
            number: number.map(|it| if minus.is_some() { -it } else { it }),
            span: literal.span(),
        })
    }
}

impl Param {
    /// The parameter of a field, or `None` of a field without `#[param]`.
    pub fn of(field: &Field) -> Result<Option<Param>> {
        let mut attributes = field
            .attrs
            .iter()
            .filter(|attribute| attribute.path().is_ident("param"));
        let Some(attribute) = attributes.next() else {
            return Ok(None);
        };
        if let Some(second) = attributes.next() {
            return Err(Error::new_spanned(second, "#[param] stands here twice"));
        }
        let ident = field
            .ident
            .as_ref()
            .ok_or_else(|| Error::new_spanned(field, "a parameter needs a field with a name"))?;
        let doc = Doc::of(&field.attrs).whole();
        if doc.is_empty() {
            return Err(Error::new(
                ident.span(),
                "a parameter needs a doc comment that says what it means, with its unit: users read it",
            ));
        }
        let mut param = Param {
            name: kebab(&ident.to_string()),
            ty: field.ty.clone(),
            doc,
            default: None,
            min: None,
            max: None,
            exists: false,
            extensions: Vec::new(),
        };
        param.read(attribute)?;
        if RESERVED.contains(&param.name.as_str()) {
            return Err(Error::new(
                ident.span(),
                format!(
                    "`{}` is weir's own key in every stage's table: give it another with #[param(name = \"..\")]",
                    param.name
                ),
            ));
        }
        param.check_range()?;
        Ok(Some(param))
    }

    fn read(&mut self, attribute: &Attribute) -> Result<()> {
        if matches!(attribute.meta, Meta::Path(_)) {
            return Ok(());
        }
        attribute.parse_nested_meta(|meta| {
            let key = meta
                .path
                .get_ident()
                .map(Ident::to_string)
                .unwrap_or_default();
            match key.as_str() {
                "default" => self.default = Some(meta.value()?.parse()?),
                "min" => self.min = Some(number(meta.value()?)?),
                "max" => self.max = Some(number(meta.value()?)?),
                "exists" => self.exists = true,
                "extensions" => {
                    let list;
                    let value = meta.value()?;
                    bracketed!(list in value);
                    let list = Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?;
                    self.extensions = list.into_iter().collect();
                }
                "name" => {
                    let name: LitStr = meta.value()?.parse()?;
                    check_name(&name.value(), &name)?;
                    self.name = name.value();
                }
                _ => {
                    return Err(meta.error(
                        "no such thing of a parameter: it takes default, min, max, exists, extensions, name",
                    ));
                }
            }
            Ok(())
        })
    }

    fn check_range(&self) -> Result<()> {
        let bound = |it: &Option<Literal>| it.as_ref().and_then(|it| it.number);
        let (min, max) = (bound(&self.min), bound(&self.max));
        if let (Some(low), Some(high), Some(at)) = (min, max, &self.max)
            && low > high
        {
            return Err(Error::new(at.span, format!("it is less than min, {low}")));
        }
        if let Some(default) = &self.default
            && let Some(number) = default.number
            && (min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max))
        {
            return Err(Error::new(
                default.span,
                "the default is not between min and max",
            ));
        }
        Ok(())
    }

    pub fn write(&self, json: &mut Json) {
        let ty = &self.ty;
        // Spanned at the type, so that a type that cannot be a parameter is marked itself.
        let of = |name: &str| {
            let name = Ident::new(name, ty.span());
            quote_spanned!(ty.span()=> <#ty as ::weir_plugin::param::Param>::#name)
        };
        json.raw("{\"name\":")
            .text(&self.name)
            .raw(",\"type\":\"")
            .constant(of("KIND"))
            .raw("\"")
            .member("doc", &self.doc);
        match &self.default {
            Some(default) => {
                json.raw(&format!(",\"default\":{}", default.json));
            }
            None => {
                json.constant(of("REQUIRED"));
            }
        }
        for (key, bound, own) in [("min", &self.min, "MIN"), ("max", &self.max, "MAX")] {
            match bound {
                Some(bound) => json.raw(&format!(",\"{key}\":{}", bound.json)),
                None => json.constant(of(own)),
            };
        }
        json.constant(of("VALUES"));
        if self.exists {
            json.raw(",\"exists\":true");
        }
        if !self.extensions.is_empty() {
            let list: Vec<String> = self
                .extensions
                .iter()
                .map(|it| quoted(&it.value()))
                .collect();
            json.raw(&format!(",\"extensions\":[{}]", list.join(",")));
        }
        json.raw("}");
    }

    /// Constants that compile only when the attributes fit the type.
    pub fn checks(&self) -> TokenStream {
        let ty = &self.ty;
        let literal = |it: &Literal, name: &str| {
            let (tokens, span) = (&it.tokens, it.span);
            let name = Ident::new(name, Span::call_site());
            quote_spanned!(span=> const _: <#ty as ::weir_plugin::param::Param>::#name = #tokens;)
        };
        let mut checks = TokenStream::new();
        if let Some(default) = &self.default {
            checks.extend(literal(default, "Literal"));
            let json = &default.json;
            let span = default.span;
            checks.extend(quote_spanned! {span=>
                const _: () = assert!(
                    ::weir_plugin::param::is_value(<#ty as ::weir_plugin::param::Param>::VALUES, #json),
                    "the default is none of the choice's values"
                );
            });
        }
        for bound in [&self.min, &self.max].into_iter().flatten() {
            checks.extend(literal(bound, "Bound"));
        }
        if let Some(first) = self.extensions.first() {
            let span = first.span();
            checks.extend(quote_spanned! {span=>
                const _: () = assert!(
                    ::weir_plugin::param::is_slides(<#ty as ::weir_plugin::param::Param>::KIND),
                    "`extensions` are for slides"
                );
            });
        }
        if self.exists {
            let span = ty.span();
            checks.extend(quote_spanned! {span=>
                const _: () = assert!(
                    ::weir_plugin::param::is_path(<#ty as ::weir_plugin::param::Param>::KIND),
                    "`exists` is for a path"
                );
            });
        }
        checks
    }
}

fn number(input: ParseStream) -> Result<Literal> {
    let literal: Literal = input.parse()?;
    if literal.number.is_none() {
        return Err(Error::new(literal.span, "expected a number"));
    }
    Ok(literal)
}
