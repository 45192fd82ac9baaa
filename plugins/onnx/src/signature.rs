//! What a model takes and gives, as its file says.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};
use std::fmt;

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Type of its numbers; `None` of what is no tensor.
    pub element: Option<TensorElementType>,
    /// Its dimensions, the batch's too.
    pub dims: Vec<Dim>,
}

/// A dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// This number.
    Fixed(u64),
    /// Any, under this name, which may be empty.
    Open(String),
}

/// All inputs and outputs of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What it takes.
    pub inputs: Vec<Tensor>,
    /// What it gives.
    pub outputs: Vec<Tensor>,
}

impl Signature {
    /// Of a model that was loaded.
    pub fn of(session: &Session) -> Signature {
        Signature {
            inputs: session.inputs().iter().map(tensor).collect(),
            outputs: session.outputs().iter().map(tensor).collect(),
        }
    }
}

fn tensor(outlet: &Outlet) -> Tensor {
    let name = outlet.name().to_owned();
    match outlet.dtype() {
        ValueType::Tensor {
            ty,
            shape,
            dimension_symbols,
        } => Tensor {
            name,
            element: Some(*ty),
            dims: shape
                .iter()
                .enumerate()
                .map(|(at, extent)| match u64::try_from(*extent) {
                    Ok(extent) => Dim::Fixed(extent),
                    Err(_) => Dim::Open(dimension_symbols.get(at).cloned().unwrap_or_default()),
                })
                .collect(),
        },
        _ => Tensor {
            name,
            element: None,
            dims: Vec::new(),
        },
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(extent) => write!(f, "{extent}"),
            Dim::Open(name) if name.is_empty() => f.write_str("?"),
            Dim::Open(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Tensor {
    /// As `x: f32[n, 3, 224, 224]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(element) = self.element else {
            return write!(f, "{}: no tensor", self.name);
        };
        let dims: Vec<String> = self.dims.iter().map(Dim::to_string).collect();
        write!(f, "{}: {element}[{}]", self.name, dims.join(", "))
    }
}

impl fmt::Display for Signature {
    /// As `takes x: f32[n, 3, 224, 224]; gives y: f32[n, 512]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |tensors: &[Tensor]| {
            let texts: Vec<String> = tensors.iter().map(Tensor::to_string).collect();
            match texts.is_empty() {
                true => "nothing".to_owned(),
                false => texts.join(" and "),
            }
        };
        write!(
            f,
            "takes {}; gives {}",
            list(&self.inputs),
            list(&self.outputs)
        )
    }
}
