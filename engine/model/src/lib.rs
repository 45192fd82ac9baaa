//! # weir-model: what a network is, its weights, and how it runs
//!
//! [`Network`] describes an encoder as data; [`Net`] is it on burn (what the trainer trains); [`Executor`] runs it on
//! pixels, by burn or by ONNX Runtime, whose graph [`onnx`] writes. What comes after the feature vector (attention,
//! pool, classifier, the scorer's last layer) runs in the portable loops of weir-kernels.
//!
//! A model is a folder: `model.toml` ([`ModelHeader`](weir_pipeline::model::ModelHeader)) and `weights.safetensors`. The
//! encoder's arrays have torchvision's names where the network is torchvision's, `stageN.conv.weight`,
//! `stageN.norm.weight` and `.bias` in the small one, then `feature.weight` [feature, channels] and `feature.bias`; what
//! stands behind it is listed in [`head`]. [`save`] writes a folder; [`Scorer`], [`Encoder`] and [`BagModel`] read one, after the weights' hash, names, shapes and numbers have been checked.
//!
//! | type | is |
//! |---|---|
//! | [`Scorer`] | model A: pixels to the probabilities of the classes and the score that tiles are ranked by |
//! | [`Encoder`] | pixels to features |
//! | [`BagModel`] | the rest of model B: features to attention, pooled vector, verdict |
//! | [`PoolPasses`] | its pool in training, with the gradient |

pub mod bag;
pub mod burn_net;
pub mod encoder;
pub mod error;
pub mod executor;
pub mod file;
pub mod folder;
pub mod gradient;
pub mod head;
pub mod input;
pub mod kernels;
pub mod network;
pub mod onnx;
pub mod scorer;
pub mod weights;
pub mod whole;

pub use bag::{BagModel, Pooled, Pooling, Verdict};
pub use burn_net::{BatchStatistics, Net};
pub use encoder::Encoder;
pub use error::ModelError;
pub use executor::{Choice, Chosen, Device, Executor, ExecutorError, Which};
pub use folder::save;
pub use gradient::PoolPasses;
pub use input::{Input, WrongSize};
pub use network::{Layer, Network, NetworkError, Parameter, Start};
pub use scorer::Scorer;
pub use weights::{Array, Weights, WeightsError, sha256};
pub use weir_kernels::KernelError;
