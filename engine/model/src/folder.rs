//! A model's folder: `model.toml` and `weights.safetensors`.

use crate::error::ModelError;
use crate::file;
use crate::head;
use crate::network::{Network, Parameter};
use crate::weights::{self, Weights, sha256};
use std::path::Path;
use weir_pipeline::model::{ModelHeader, ModelKind};

/// The header's network.
pub fn network(header: &ModelHeader) -> Result<Network, ModelError> {
    Network::new(&header.arch, header.feature as usize)
        .map_err(|error| ModelError::of_network(&header.folder.join(ModelHeader::FILE), error))
}

/// Every array of the model: the encoder's, then the head's.
pub fn parameters(header: &ModelHeader) -> Result<Vec<Parameter>, ModelError> {
    let (network, classes) = (network(header)?, header.classes.len());
    Ok(match header.kind {
        ModelKind::Scorer => head::scorer_parameters(&network, classes),
        ModelKind::Bag => {
            head::bag_parameters(&network, header.hidden as usize, header.gated, classes)
        }
    })
}

/// The weights that `header` speaks of: its hash, every array in its shape, none besides, all numbers finite.
pub fn weights(header: &ModelHeader) -> Result<Weights, ModelError> {
    let path = header.weights();
    let bytes = weights::read(&path).map_err(ModelError::of_weights)?;
    let found = sha256(&bytes);
    if found != header.sha256 {
        return Err(ModelError::new(
            &path,
            format!(
                "its SHA-256 is {found}, but model.toml says {}",
                header.sha256
            ),
            "fetch the model again; or, if these weights are meant, put their hash into model.toml",
        ));
    }
    let weights = Weights::parse(&path, &bytes).map_err(ModelError::of_weights)?;
    weights
        .check(&parameters(header)?)
        .map_err(ModelError::of_weights)?;
    Ok(weights)
}

/// Writes a model into `folder`, which is made when it is not there, and returns the header with the weights' hash in it.
///
/// Each file is whole or not there. `model.toml` is written last and carries the weights' hash, so a folder that was left
/// between the two is refused when it is loaded, never run with the wrong weights.
pub fn save(
    folder: &Path,
    header: &ModelHeader,
    weights: &Weights,
) -> Result<ModelHeader, ModelError> {
    let mut header = ModelHeader {
        folder: folder.to_path_buf(),
        ..header.clone()
    };
    let path = folder.join(ModelHeader::FILE);
    weights
        .check(&parameters(&header)?)
        .map_err(ModelError::of_weights)?;
    header.sha256 = weights
        .save(&header.weights())
        .map_err(ModelError::of_weights)?;
    if let Some((what, help)) = header.wrong() {
        return Err(ModelError::new(&path, what, help));
    }
    let text = toml::to_string(&header)
        .map_err(|error| ModelError::new(&path, format!("could not be written: {error}"), ""))?;
    file::write(&path, text.as_bytes()).map_err(|error| {
        ModelError::new(
            &path,
            format!("could not be written: {error}"),
            "is there room, and may you write there?",
        )
    })?;
    Ok(header)
}
