// How adversarial the emulated machine is: read once from the environment, so that a test sets it for a child process.
#pragma once
#include <cstdint>

namespace emu {

struct Settings {
    /// Order of threads and blocks: 0 is ascending, anything else is drawn from it. (WEIR_EMU_SEED)
    uint64_t seed = 0;
    /// Asynchronous copies happen at the last moment that the wait allows, otherwise at the first. (WEIR_EMU_CP=late|early)
    bool late = true;
    /// Blocks in flight, an OS thread each. (WEIR_EMU_WORKERS)
    unsigned workers = 1;
    /// Streams run only when something waits for them. (WEIR_EMU_LAZY=1)
    bool lazy = false;
    /// Multiprocessors that the device says it has. (WEIR_EMU_SMS)
    int multiprocessors = 132;
    /// Compute capability. (WEIR_EMU_CC=9.0)
    int major = 9, minor = 0;
    /// Version of the driver as cuDriverGetVersion gives it, 1000 major + 10 minor. (WEIR_EMU_DRIVER)
    int driver = 13000;
    /// Bytes of device memory that can be allocated at the same time. (WEIR_EMU_MEMORY)
    uint64_t memory = (uint64_t)1 << 32;
    /// Says on the standard error what the driver is asked to do. (WEIR_EMU_TRACE=1)
    bool trace = false;
};

const Settings& settings();

}  // namespace emu
