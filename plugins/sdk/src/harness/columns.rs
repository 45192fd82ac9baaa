//! Columns of a stage's outputs, of what the manifest, the parameters, the input and the stage itself say.

use super::about::{Dim, Port};
use super::memory::Spec;
use super::stage::Stage;
use crate::abi::column::Dtype;
use crate::error::{Error, Result};
use serde_json::Value as Json;

impl Stage {
    /// Columns of each output, for this input.
    pub(super) fn outs(&self, port: u32, input: Option<&[i64]>) -> Result<Vec<Vec<Spec>>> {
        let from = self.about.ins.get(port as usize);
        self.about
            .outs
            .iter()
            .enumerate()
            .map(|(i, out)| self.columns(i as u32, out, from, input))
            .collect()
    }

    fn columns(
        &self,
        place: u32,
        out: &Port,
        from: Option<&Port>,
        input: Option<&[i64]>,
    ) -> Result<Vec<Spec>> {
        let f32s = |names: &[&str]| {
            names
                .iter()
                .map(|name| Spec::new(name, Dtype::F32, &[]))
                .collect::<Vec<_>>()
        };
        let last = || match out.shape.last() {
            Some(dim) => self.dim(place, dim, from, input),
            None => Err(Error::new(format!(
                "output `{}` says no shape, so its width is not known",
                out.name
            ))),
        };
        Ok(match out.kind.as_str() {
            "pixels" => {
                let shape = match (out.shape.is_empty(), input) {
                    (true, Some(input)) if from.is_some_and(|it| it.kind == "pixels") => {
                        input.to_vec()
                    }
                    _ => out
                        .shape
                        .iter()
                        .map(|dim| self.dim(place, dim, from, input))
                        .collect::<Result<_>>()?,
                };
                vec![Spec::new("pixels", Dtype::U8, &shape)]
            }
            "scores" => {
                let mut columns = f32s(&["score"]);
                columns.push(Spec::new("probabilities", Dtype::F32, &[last()?]));
                columns
            }
            "picks" => f32s(&["score"]),
            "features" => vec![Spec::new("features", Dtype::F32, &[last()?])],
            "attention" => f32s(&["logit", "weight", "contribution", "without"]),
            "bag" => {
                let mut columns = vec![Spec::new("pooled", Dtype::F32, &[last()?])];
                columns.extend(f32s(&["effective", "entropy"]));
                columns.push(Spec::new("members", Dtype::U64, &[]));
                columns.push(Spec::new("flags", Dtype::U32, &[]));
                columns
            }
            "predictions" => {
                let classes = last()?;
                vec![
                    Spec::new("logits", Dtype::F32, &[classes]),
                    Spec::new("probabilities", Dtype::F32, &[classes]),
                    Spec::new("class", Dtype::I32, &[]),
                ]
            }
            "table" => vec![Spec::new("bytes", Dtype::U8, &[-1])],
            other => {
                return Err(Error::new(format!(
                    "the manifest has an unknown kind `{other}`"
                )));
            }
        })
    }

    fn dim(
        &self,
        place: u32,
        dim: &Dim,
        from: Option<&Port>,
        input: Option<&[i64]>,
    ) -> Result<i64> {
        match dim {
            Dim::Fixed(number) => Ok(*number),
            Dim::Param(name) => {
                let default = self
                    .about
                    .params
                    .iter()
                    .find(|param| param["name"] == **name);
                let default = default.and_then(|param| param.get("default"));
                let value = self.values.get(name).or(default).and_then(Json::as_i64);
                value.ok_or_else(|| {
                    Error::param(
                        name,
                        "a size of an output is this parameter, which is no whole number",
                    )
                })
            }
            Dim::Same(name) => {
                // Scores and predictions are called after the tiles' shape, but a batch's last column has their last dimension only.
                let known = from.zip(input).and_then(|(from, shape)| {
                    let behind = from.shape.iter().rev().zip(shape.iter().rev());
                    behind
                        .into_iter()
                        .find(|(it, _)| *it == dim)
                        .map(|(_, size)| *size)
                });
                match known {
                    Some(size) => Ok(size),
                    None => self.resolve(place, name),
                }
            }
        }
    }
}
