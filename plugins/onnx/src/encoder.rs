//! `onnx.encoder`: tiles to feature vectors.

use crate::stage::{each_row, stage_of_a_model};
use weir_plugin::{Batch, Call, Error, Map, Result};

stage_of_a_model! {
    /// Makes feature vectors of tiles with any ONNX file
    ///
    /// The model takes pixels, [n, 3, size, size] or [n, size, size, 3] of f32, f16 or u8, and gives a vector a tile, [n, d] or
    /// [n, d, 1, 1] of f32 or f16; n, height and width may be open. A tile of which it makes no finite number is counted as failed.
    ///
    /// It runs on ONNX Runtime, which is found as the engine's own executor finds it. The log says what the model takes and gives.
    #[derive(weir_plugin::Stage)]
    #[stage(
        map,
        id = "onnx.encoder",
        deterministic,
        memory = "memory",
        example = "[stage.encode]\nuse = \"onnx.encoder\"\nin = \"chosen\"\nmodel = \"encoder.onnx\"\nfeatures = 512\nsize = 224\nmpp = 0.5\nmean = \"0.485, 0.456, 0.406\"\nstd = \"0.229, 0.224, 0.225\"\n"
    )]
    #[input(tiles: pixels["$size", "$size", 3], mpp = "$mpp", doc = "Pixels of each tile, of the size and resolution that the model was trained on")]
    #[output(features: features["$features"], doc = "Feature vector of each tile")]
    pub struct Encoder {
        /// Numbers of a feature vector; the model must give as many
        #[param(min = 1, max = 1048576)]
        features: u32,
    }
}

impl Map for Encoder {
    fn start(&mut self, call: &Call) -> Result<()> {
        let model = self.given().open(call)?;
        if model.width() != self.features as usize {
            return Err(model.blame(Error::param(
                "features",
                format!(
                    "the model gives {} numbers of a tile, not {}",
                    model.width(),
                    self.features
                ),
            )));
        }
        self.opened = Some(model);
        Ok(())
    }

    fn map(&self, batch: &Batch, call: &Call) -> Result<()> {
        let (mut rows, mut features) = (Vec::with_capacity(batch.len()), Vec::new());
        each_row(self.opened.as_ref(), batch, call, |row, numbers| {
            rows.push(row);
            features.extend_from_slice(numbers);
            Ok(())
        })?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut made = call.out().make(&rows)?;
        let mut column = made.column_mut::<f32>("features")?;
        for (i, numbers) in features.chunks_exact(self.features as usize).enumerate() {
            let into = column.row_mut(i);
            if into.len() != numbers.len() {
                return Err(Error::new(format!(
                    "the host takes {} numbers a row, not {}",
                    into.len(),
                    numbers.len()
                )));
            }
            into.copy_from_slice(numbers);
        }
        made.emit()
    }
}
