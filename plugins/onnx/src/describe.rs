//! What an ONNX file takes and gives, and how it would stand in a pipeline: for `weir plugin inspect`.

use crate::session::{Place, Session, mebibytes};
use crate::signature::{Dim, Signature, Tensor};
use ort::value::TensorElementType;
use std::path::Path;
use weir_plugin::{Call, Error, Result};

/// Says it in lines of the log.
///
/// # Errors
/// Without ONNX Runtime, and when it does not take the file.
pub fn describe(path: &Path, call: &Call) -> Result<()> {
    // No parameter is at fault where there is no pipeline.
    let session = Session::open(path, Place::Cpu, u64::MAX)
        .map_err(|error| Error::new(error.message()).help(error.what_to_do()))?;
    for line in lines(&session.signature()) {
        call.info(&line);
    }
    call.info(&format!(
        "holds {} for its weights; a pass comes to that",
        mebibytes(session.held()?.allocated)
    ));
    call.info(&format!("read by {}", session.library()));
    Ok(())
}

fn lines(signature: &Signature) -> Vec<String> {
    let mut lines = Vec::new();
    for input in &signature.inputs {
        lines.push(format!("takes {input}{}", note(as_pixels(input))));
    }
    for output in &signature.outputs {
        lines.push(format!("gives {output}{}", note(as_vector(output))));
    }
    if signature.inputs.len() > 1 {
        lines.push(format!(
            "no stage takes it: it has {} inputs, and only pixels can be given",
            signature.inputs.len()
        ));
    }
    if signature.outputs.len() > 1 {
        lines.push(format!(
            "a stage needs to be told which of its {} outputs: `output`",
            signature.outputs.len()
        ));
    }
    lines
}

fn note(parameters: Vec<String>) -> String {
    match parameters.is_empty() {
        true => String::new(),
        false => format!("  # {}", parameters.join(", ")),
    }
}

/// The parameters that follow of an input, where it can take pixels.
fn as_pixels(input: &Tensor) -> Vec<String> {
    let [batch, one, two, three] = &input.dims[..] else {
        return Vec::new();
    };
    let three_channels = Dim::Fixed(3);
    let (layout, height, width) = if *one == three_channels {
        ("nchw", two, three)
    } else if *three == three_channels {
        ("nhwc", one, two)
    } else {
        return Vec::new();
    };
    let mut parameters = vec![format!("input-layout = \"{layout}\"")];
    match (height, width) {
        (Dim::Fixed(height), Dim::Fixed(width)) if height == width => {
            parameters.push(format!("size = {height}"));
        }
        (Dim::Open(_), Dim::Open(_)) => parameters.push("any size".to_owned()),
        _ => parameters.push(format!("no squares: {height} x {width} px")),
    }
    if let Dim::Fixed(batch) = batch {
        parameters.push(format!("batch = {batch}"));
    }
    parameters
}

/// The parameters that follow of an output, where it is a vector a tile.
fn as_vector(output: &Tensor) -> Vec<String> {
    let real = matches!(
        output.element,
        Some(TensorElementType::Float32 | TensorElementType::Float16)
    );
    let Some((_, rest)) = output.dims.split_first().filter(|_| real) else {
        return Vec::new();
    };
    let mut width = 1;
    for dim in rest {
        match dim {
            Dim::Fixed(1) => {}
            Dim::Fixed(extent) if width == 1 => width = *extent,
            // A map, or not known before it runs.
            _ => return Vec::new(),
        }
    }
    vec![
        format!("output = \"{}\"", output.name),
        format!("features or classes = {width}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dims: &[i64]) -> Tensor {
        let dim = |&extent: &i64| match u64::try_from(extent) {
            Ok(extent) => Dim::Fixed(extent),
            Err(_) => Dim::Open(String::new()),
        };
        Tensor {
            name: name.into(),
            element: Some(TensorElementType::Float32),
            dims: dims.iter().map(dim).collect(),
        }
    }

    #[test]
    fn each_line_says_which_parameters_follow() {
        let signature = Signature {
            inputs: vec![
                tensor("x", &[-1, 3, 224, 224]),
                tensor("y", &[4, 48, 192, 3]),
                tensor("z", &[1, 3, -1, -1]),
                tensor("by", &[1]),
            ],
            outputs: vec![
                tensor("vector", &[-1, 512, 1, 1]),
                tensor("map", &[-1, 512, 7, 7]),
            ],
        };
        assert_eq!(
            lines(&signature),
            [
                "takes x: f32[?, 3, 224, 224]  # input-layout = \"nchw\", size = 224",
                "takes y: f32[4, 48, 192, 3]  # input-layout = \"nhwc\", no squares: 48 x 192 px, batch = 4",
                "takes z: f32[1, 3, ?, ?]  # input-layout = \"nchw\", any size, batch = 1",
                "takes by: f32[1]",
                "gives vector: f32[?, 512, 1, 1]  # output = \"vector\", features or classes = 512",
                "gives map: f32[?, 512, 7, 7]",
                "no stage takes it: it has 4 inputs, and only pixels can be given",
                "a stage needs to be told which of its 2 outputs: `output`",
            ]
        );
    }
}
