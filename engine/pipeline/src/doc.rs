//! The tree of a file: every key and value with its place.

use crate::source::Span;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub data: Data,
    /// When it stands there as `${NAME}`: which variable, and where that got its value.
    pub via: Option<Via>,
}

/// The variable that a value came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// The variable.
    pub name: String,
    /// Where its value stands.
    pub span: Span,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Text.
    Text(String),
    /// A whole number; `None` when it does not fit 64 bits.
    Integer(Option<i64>),
    /// A number.
    Float(f64),
    /// true or false.
    Boolean(bool),
    /// A date or time, which no key of a pipeline takes.
    Date,
    /// A list.
    List(Vec<Item>),
    /// A table.
    Table(Table),
    /// What could not be made out and was reported already.
    Reported,
}

/// Keys and values in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The entries.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// Where the key stands.
    pub key: Span,
    /// The value.
    pub value: Item,
}

impl Data {
    /// What it is, in words.
    pub fn type_name(&self) -> &'static str {
        match self {
            Data::Text(_) => "a text",
            Data::Integer(_) => "a whole number",
            Data::Float(_) => "a number",
            Data::Boolean(_) => "true or false",
            Data::Date => "a date",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
            Data::Reported => "a mistake",
        }
    }
}

impl Item {
    /// A value that stands where it is written.
    pub fn new(span: Span, data: Data) -> Self {
        Item {
            span,
            data,
            via: None,
        }
    }

    /// Where the value itself was written: behind the variable, when there is one.
    pub fn origin(&self) -> Span {
        self.via.as_ref().map_or(self.span, |via| via.span)
    }

    /// The text, when it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The table, when it is one.
    pub fn table(&self) -> Option<&Table> {
        match &self.data {
            Data::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Whether it was reported already.
    pub fn is_reported(&self) -> bool {
        self.data == Data::Reported
    }
}

impl Table {
    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The entry of this name, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.name == name)
    }
}
