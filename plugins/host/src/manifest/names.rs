//! The engine's own words for what the engine's own types say.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use weir_pipeline::{Deliver, Kind, Place, Rows};

pub fn arrival() -> Deliver {
    Deliver::Arrival
}

pub fn home() -> Place {
    Place::Home
}

/// A module that reads and writes one of `values` by its name.
macro_rules! by_name {
    ($module:ident, $type:ty, $name:expr, [$($value:expr),*]) => {
        pub mod $module {
            use super::*;

            pub fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                let name: fn($type) -> &'static str = $name;
                to.serialize_str(name(*value))
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let text = String::deserialize(from)?;
                let name: fn($type) -> &'static str = $name;
                let all = [$($value),*];
                all.into_iter().find(|value| name(*value) == text).ok_or_else(|| {
                    let all = all.map(name).join(", ");
                    D::Error::custom(format!("{text:?} is none of {all}"))
                })
            }
        }
    };
}

by_name!(
    rows,
    Rows,
    Rows::name,
    [
        Rows::Source,
        Rows::Map,
        Rows::Filter,
        Rows::Reduce,
        Rows::Sink
    ]
);
by_name!(
    kind,
    Kind,
    Kind::name,
    [
        Kind::Pixels,
        Kind::Scores,
        Kind::Picks,
        Kind::Features,
        Kind::Attention,
        Kind::Bag,
        Kind::Predictions,
        Kind::Table
    ]
);
by_name!(
    deliver,
    Deliver,
    |value| match value {
        Deliver::Arrival => "arrival",
        Deliver::Generation => "generation",
    },
    [Deliver::Arrival, Deliver::Generation]
);
by_name!(
    place,
    Place,
    |value| match value {
        Place::Home => "home",
        Place::First => "first",
    },
    [Place::Home, Place::First]
);
