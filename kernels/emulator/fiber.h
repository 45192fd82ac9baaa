// Fibers: one a CUDA thread, switched by hand. x86-64 in twelve instructions, ucontext elsewhere; the address sanitizer is
// told of every switch, where -DWEIR_EMU_ASAN=1 says that it is there.
#pragma once
#include <cstddef>
#include <cstdint>

namespace emu {

/// Stacks of one size in one mapping, with a guard page below each; pages appear as they are touched.
class Stacks {
public:
    ~Stacks();
    /// Makes room for `count` stacks.
    void reserve(size_t count);
    /// The lowest usable byte of stack `i`.
    char* stack(size_t i) const;
    /// Bytes of a stack above the guard page.
    static size_t size();

private:
    char* base = nullptr;
    size_t count = 0;
};

/// A place where execution goes on: a fiber's, or the scheduler's.
struct Context {
    void* place = nullptr;         // x86-64: the stack pointer; elsewhere: a ucontext_t
    void* fake_stack = nullptr;    // the sanitizer's
    const void* stack = nullptr;   // lowest byte and size of the stack in use, for the sanitizer
    size_t size = 0;
};

/// Makes `fiber` start `entry` on the stack [stack, stack + Stacks::size()). `entry` must never return.
void prepare(Context& fiber, char* stack, void (*entry)());

/// Goes on at `to`; returns when somebody switches back to `from`. `last` says that nobody ever will.
void switch_to(Context& from, Context& to, bool last = false);

/// The first thing that `entry` does: `scheduler` is whence it came.
void arrived(Context& scheduler);

}  // namespace emu
