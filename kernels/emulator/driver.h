// libcuda.so for tests: the part of the driver API that cudarc and weir's launcher call, over the emulator. Strict where the
// real one is lax: every handle, range and size is checked, and nothing is forgiven.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>

#include "registry.h"
#include "settings.h"

#define API extern "C" __attribute__((visibility("default"))) Result

namespace emu {

using Result = int;
using Pointer = unsigned long long;  // CUdeviceptr

// The numbers of CUresult.
enum : Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_PTX = 218,
    UNSUPPORTED_PTX_VERSION = 222,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    INVALID_CLUSTER_SIZE = 912,
    NOT_SUPPORTED = 801,
};

/// One lock for the driver's whole state; a kernel runs under it.
extern std::recursive_mutex lock;
using Guard = std::lock_guard<std::recursive_mutex>;

/// With WEIR_EMU_TRACE: a line on the standard error.
__attribute__((format(printf, 1, 2))) void trace(const char* format, ...);

/// Says why a call is refused and returns `code`.
__attribute__((format(printf, 2, 3))) Result refuse(Result code, const char* format, ...);

/// SUCCESS, or why this thread may not call: cuInit has not been called, or no context is current.
Result usable(const char* call);

// ---- memory ----

/// SUCCESS if [p, p + bytes) lies within one live allocation of device memory.
Result check_range(Pointer p, size_t bytes, const char* call);
bool pinned(const void* p, size_t bytes);
/// Reports bytes written behind the end of an allocation.
void check_fences();
int shared_memory_limit();

// ---- streams ----

struct Stream;
/// The stream of a handle (null is the legacy default stream), or null if there is no such.
Stream* find_stream(void* handle);
/// Puts work at the stream's end. Eager streams run it at once; the result is then the work's.
Result enqueue(Stream& stream, std::function<Result()> work);
/// Runs all that the stream holds, and what that waits for.
Result drain(Stream& stream);
/// As the legacy default stream does: all streams but the non-blocking ones.
Result drain_blocking();
Result drain_all();

}  // namespace emu
