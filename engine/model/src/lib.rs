//! Models: what a network is, its weights, and how it runs.
//!
//! [`Network`] describes an encoder as data; [`Net`] is it on burn (what the trainer trains); [`Executor`] runs it on
//! pixels, by burn or by ONNX Runtime, whose graph [`onnx`] writes. What comes after the feature vector (attention,
//! pool, classifier, the scorer's last layer) runs in the portable loops of weir-kernels.

pub mod burn_net;
pub mod executor;
pub mod file;
pub mod head;
pub mod input;
pub mod network;
pub mod onnx;
pub mod weights;

pub use burn_net::{BatchStatistics, Net};
pub use executor::{Choice, Chosen, Device, Executor, ExecutorError, Which};
pub use input::{Input, WrongSize};
pub use network::{Layer, Network, NetworkError, Parameter, Start};
pub use weights::{Array, Weights, WeightsError, sha256};
