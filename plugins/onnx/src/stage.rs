//! What the scorer and the encoder have in common: the parameters that say what the model is, and how a batch goes through it.

use crate::form::{Channels, Layout, three};
use crate::model::{Model, Wanted};
use crate::session::Place;
use std::path::PathBuf;
use weir_plugin::param::Bytes;
use weir_plugin::{Batch, Call, Error, Result};

/// Where the model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, weir_plugin::Choice)]
pub enum Device {
    /// On the CUDA device that the run uses, where there is one and ONNX Runtime can use it; else on the processor.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On a CUDA device, or not at all.
    Cuda,
}

/// The parameters of both stages, as they were given.
pub(crate) struct Given<'a> {
    pub model: &'a PathBuf,
    pub size: u32,
    pub mpp: f64,
    pub input: &'a Option<String>,
    pub output: &'a Option<String>,
    pub layout: Layout,
    pub channels: Channels,
    pub scale: Option<f32>,
    pub mean: &'a str,
    pub std: &'a str,
    pub batch: Option<u32>,
    pub device: Device,
    pub cuda_device: u32,
    pub memory: Bytes,
}

impl Given<'_> {
    fn wanted(&self, place: Place) -> Result<Wanted> {
        let std = three("std", self.std)?;
        if std.contains(&0.0) {
            return Err(Error::param("std", "a channel cannot be divided by 0"));
        }
        Ok(Wanted {
            model: self.model.clone(),
            place,
            input: self.input.clone(),
            output: self.output.clone(),
            layout: self.layout,
            channels: self.channels,
            scale: self.scale,
            mean: three("mean", self.mean)?,
            std,
            size: self.size,
            batch: self.batch,
            memory: self.memory.0,
        })
    }

    /// Opens the model where it is to run, and says so in the log.
    pub fn open(&self, call: &Call) -> Result<Model> {
        let on = |place: Place| -> Result<Model> {
            let model = Model::open(&self.wanted(place)?)?;
            call.info(&format!(
                "{}, tiles of {} px at {} um/px: {}",
                self.model.display(),
                self.size,
                self.mpp,
                model.describe(place)
            ));
            if model.is_alone() {
                call.warn(
                    "a tile's numbers would hang on its place in a batch of this model, so each pass has one tile; `batch = 1` does the same faster where the model takes it",
                );
            }
            Ok(model)
        };
        match (self.device, call.cuda()) {
            (Device::Cpu, _) | (Device::Auto, None) => on(Place::Cpu),
            (Device::Cuda, _) => on(Place::Cuda(self.cuda_device)),
            (Device::Auto, Some(cuda)) => {
                let number = u32::try_from(cuda.device).unwrap_or_default();
                on(Place::Cuda(number)).or_else(|error| match error.of_which_param() {
                    "device" => {
                        call.warn(&format!("on the processor: {error}"));
                        on(Place::Cpu)
                    }
                    _ => Err(error),
                })
            }
        }
    }
}

/// The tiles of a batch through the model: `take` gets a row's place and the model's numbers of it. Rows with a number that is none
/// are failed.
pub(crate) fn each_row(
    model: Option<&Model>,
    batch: &Batch,
    call: &Call,
    mut take: impl FnMut(u32, &[f32]) -> Result<()>,
) -> Result<()> {
    let model = model.ok_or_else(|| Error::new("the stage was not started"))?;
    let pixels = batch.column::<u8>("pixels")?;
    let tiles: Vec<&[u8]> = pixels.iter().collect();
    let numbers = model.forward(&tiles, || call.cancelled())?;
    for (row, numbers) in numbers.chunks_exact(model.width()).enumerate() {
        let made = match numbers.iter().all(|number| number.is_finite()) {
            true => take(row as u32, numbers),
            false => Err(Error::new("the model made no finite number of the tile")
                .help("are mean, std and scale those that it was trained with?")),
        };
        if let Err(error) = made {
            call.fail_row(row, &error)?;
        }
    }
    Ok(())
}

/// A stage with the parameters that say what the model is, and with its own. The derive stands with its attributes, which must follow it.
macro_rules! stage_of_a_model {
    ($(#[$head:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$head])*
        pub struct $name {
            /// The ONNX file, or a folder that holds one with its weights: where a model keeps them in files of their own, only a folder makes them part of the plan
            #[param(exists)]
            model: std::path::PathBuf,
            $($own)*
            /// Width and height of the tiles that the model takes, px
            #[param(min = 1, max = 16384)]
            size: u32,
            /// Resolution of the tiles that the model was trained on, um/px
            #[param(min = 0.001, max = 1000.0)]
            mpp: f64,
            /// The model's input that takes pixels; the only one where it is not given
            #[param]
            input: Option<String>,
            /// The model's output that is read; the only one where it is not given
            #[param]
            output: Option<String>,
            /// Where the model has its channels: `nchw` (PyTorch) or `nhwc` (TensorFlow)
            #[param(default = "nchw")]
            input_layout: $crate::form::Layout,
            /// The order of the model's channels: `rgb`, or `bgr` as of OpenCV and Caffe
            #[param(default = "rgb")]
            channels: $crate::form::Channels,
            /// What pixel values, 0 to 255, are divided by first: 255 (which it is when it is not given) makes them 0 to 1, 1 leaves them
            #[param(min = 1.0, max = 65536.0)]
            scale: Option<f32>,
            /// What is subtracted then, in the order of the model's channels: three numbers with commas between them, or one for all
            #[param(default = "0")]
            mean: String,
            /// What the channels are divided by then, as `mean`
            #[param(default = "1")]
            std: String,
            /// Tiles of a pass; the model's own number where it has one, else 1. No choice of it changes what comes out for a tile by its
            /// neighbours: passes are filled up, and have one tile each where a tile's numbers would hang on its place
            #[param(min = 1, max = 4096)]
            batch: Option<u32>,
            /// Where the model runs: `cpu`; `cuda`, or not at all; `auto`, which is the CUDA device of the run where there is one and ONNX
            /// Runtime can use it, else the processor
            #[param(default = "auto")]
            device: $crate::stage::Device,
            /// Number of the CUDA device of `device = "cuda"`
            #[param(default = 0, max = 63)]
            cuda_device: u32,
            /// What the stage allocates at most: weights, and the numbers of the passes that run at once, of which there are as many as
            /// have room; the log says what they are. It is taken out of `run.memory`
            #[param(default = "256MiB")]
            memory: weir_plugin::param::Bytes,
            opened: Option<$crate::model::Model>,
        }

        impl $name {
            fn given(&self) -> $crate::stage::Given<'_> {
                $crate::stage::Given {
                    model: &self.model,
                    size: self.size,
                    mpp: self.mpp,
                    input: &self.input,
                    output: &self.output,
                    layout: self.input_layout,
                    channels: self.channels,
                    scale: self.scale,
                    mean: &self.mean,
                    std: &self.std,
                    batch: self.batch,
                    device: self.device,
                    cuda_device: self.cuda_device,
                    memory: self.memory,
                }
            }
        }
    };
}

pub(crate) use stage_of_a_model;
