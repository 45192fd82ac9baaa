// A report ends the process: what is wrong, in which kernel, block and thread, and where in the source.
#pragma once
#include <source_location>

namespace emu {

using Where = std::source_location;

/// Prints `emulator: ...` with the running kernel, block and thread, if any, and `where`; then aborts.
[[noreturn]] __attribute__((format(printf, 2, 3))) void report(const Where& where, const char* format, ...);

/// The same without a place in the source.
[[noreturn]] __attribute__((format(printf, 1, 2))) void report(const char* format, ...);

}  // namespace emu
