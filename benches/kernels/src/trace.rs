//! The bench on a timeline: a trace for Perfetto or chrome://tracing.

use crate::Fault;
use crate::record::Measured;
use serde_json::json;
use std::path::Path;

/// Writes the cases as complete events, one row a kernel.
pub fn write(path: &Path, measured: &[Measured]) -> Result<(), Fault> {
    let mut kernels: Vec<&str> = Vec::new();
    let mut events = Vec::new();
    for found in measured {
        let row = match kernels.iter().position(|name| *name == found.kernel) {
            Some(row) => row,
            None => {
                kernels.push(&found.kernel);
                events.push(json!({
                    "name": "thread_name", "ph": "M", "pid": 1, "tid": kernels.len() - 1,
                    "args": { "name": found.kernel },
                }));
                kernels.len() - 1
            }
        };
        events.push(json!({
            "name": found.case, "cat": found.device, "ph": "X", "pid": 1, "tid": row,
            "ts": found.begun * 1e6, "dur": found.took * 1e6,
            "args": {
                "median_us": found.median * 1e6, "GB/s": found.gb_s, "TFLOP/s": found.tflop_s, "gap": found.gap,
                "error": found.error, "same bits": found.stable, "refused": found.refused,
            },
        }));
    }
    let text = json!({ "displayTimeUnit": "ms", "traceEvents": events }).to_string();
    std::fs::write(path, text).map_err(|error| Fault::file("write", path, error))
}
