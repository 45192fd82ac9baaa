//! Text of the manifest, of which some is known only when the compiler knows the types.

use proc_macro2::TokenStream;
use quote::quote;

/// Pieces that are put side by side: literal text, and constants of type `&str`.
#[derive(Default)]
pub struct Json {
    pieces: Vec<TokenStream>,
    text: String,
}

impl Json {
    /// Appends text as it is.
    pub fn raw(&mut self, text: &str) -> &mut Json {
        self.text.push_str(text);
        self
    }

    /// Appends a text in quotes.
    pub fn text(&mut self, text: &str) -> &mut Json {
        self.text.push_str(&quoted(text));
        self
    }

    /// Appends `,"key":"text"`.
    pub fn member(&mut self, key: &str, text: &str) -> &mut Json {
        self.raw(",").text(key).raw(":").text(text)
    }

    /// Appends a constant of type `&str`.
    pub fn constant(&mut self, constant: TokenStream) -> &mut Json {
        self.flush();
        self.pieces.push(constant);
        self
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            self.pieces.push(quote!(#text));
        }
    }

    /// `&[piece, ..]`.
    pub fn into_pieces(mut self) -> TokenStream {
        self.flush();
        let pieces = self.pieces;
        quote!(&[#(#pieces),*])
    }
}

/// The text as JSON writes it.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
