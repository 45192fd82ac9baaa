//! The settings of the run, and tests.

super::codes! {
    E0601 Error "not a device"
"A device is `auto`, `cpu`, or `cuda:0`, `cuda:1`, ... by number. Whether a CUDA device can be used is found out when the run starts; `weir doctor` says what this
machine has."

    E0602 Error "the memory is below the graph's least"
"`run.memory` bounds everything that grows. The stages keep something of every open slide, and a tile must fit beside it; with less than that,
not even one slide gets through. The message shows the sum. `weir graph` prints each stage's part."

    E0603 Error "the folder of the outputs cannot be made"
"`run.out` is a folder that weir makes when it is not there. Here a file stands in its way. Choose another folder by `--out`, or move the file."

    W0606 Warning "more threads than cores"
"`workers`, `helpers` or `readers` is far above the number of cores. Threads that wait for a core make nothing faster; each worker costs memory. Helpers and readers
default to the number of cores, workers to 1, which is enough for many thousands of tiles a second."

    E0609 Error "a test of the pipeline failed"
"A `[[test]]` of the file fed the pipeline with something known, and a stage or the prediction gave something else than `expect` says. The message
shows both. Either the pipeline changed, or the expectation is wrong."

    W0610 Warning "a setting without effect in this version"
"The setting belongs to the format, but this version of weir does nothing with it. It is checked all the same, so that the file keeps working."
}
