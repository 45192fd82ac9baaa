#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#if WEIR_EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
// WEIR_EMU_UCONTEXT: the other way here too.
#if !defined(__x86_64__) || defined(WEIR_EMU_UCONTEXT)
#include <ucontext.h>
#endif

namespace emu {

// Sanitized frames are several times larger.
static constexpr size_t GUARD = 4096 * 4;
static constexpr size_t STACK = (WEIR_EMU_ASAN ? 512 : 128) * 1024;

size_t Stacks::size() {
    return STACK - GUARD;
}

char* Stacks::stack(size_t i) const {
    return base + i * STACK + GUARD;
}

Stacks::~Stacks() {
    if (base) munmap(base, count * STACK);
}

void Stacks::reserve(size_t wanted) {
    if (wanted > count) {
        if (base) munmap(base, count * STACK);
        void* p = mmap(nullptr, wanted * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) {
            perror("emulator: no memory for the threads' stacks");
            abort();
        }
        base = (char*)p;
        count = wanted;
        for (size_t i = 0; i < count; i++) mprotect(base + i * STACK, GUARD, PROT_NONE);
    }
#if WEIR_EMU_ASAN
    // A fiber's last frame never returns, so its redzones would stay.
    for (size_t i = 0; i < wanted; i++) __asan_unpoison_memory_region(stack(i), size());
#endif
}

#if defined(__x86_64__) && !defined(WEIR_EMU_UCONTEXT)

extern "C" void weir_emu_switch(void** from, void* to);

// Saves what the System V calling convention lets a callee keep, exchanges the stacks, restores.
asm(R"(
.text
.globl weir_emu_switch
.hidden weir_emu_switch
.type weir_emu_switch,@function
weir_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size weir_emu_switch, .-weir_emu_switch
)");

void prepare(Context& fiber, char* stack, void (*entry)()) {
    fiber = Context();
    fiber.stack = stack;
    fiber.size = Stacks::size();
    void** top = (void**)(((uintptr_t)stack + Stacks::size()) & ~(uintptr_t)63);
    *--top = nullptr;  // the return address of `entry`, which has none: keeps the alignment of a call
    *--top = (void*)entry;
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber.place = top;
}

static void exchange(Context& from, Context& to) {
    weir_emu_switch(&from.place, to.place);
}

#else

void prepare(Context& fiber, char* stack, void (*entry)()) {
    ucontext_t* place = fiber.place ? (ucontext_t*)fiber.place : new ucontext_t;
    fiber = Context();
    fiber.stack = stack;
    fiber.size = Stacks::size();
    fiber.place = place;
    getcontext(place);
    place->uc_stack.ss_sp = stack;
    place->uc_stack.ss_size = Stacks::size();
    place->uc_link = nullptr;
    makecontext(place, entry, 0);
}

static void exchange(Context& from, Context& to) {
    if (!from.place) from.place = new ucontext_t;
    swapcontext((ucontext_t*)from.place, (ucontext_t*)to.place);
}

#endif

void switch_to(Context& from, Context& to, bool last) {
#if WEIR_EMU_ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.stack, to.size);
#else
    (void)last;
#endif
    exchange(from, to);
#if WEIR_EMU_ASAN
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void arrived(Context& scheduler) {
#if WEIR_EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler.stack, &scheduler.size);
#else
    (void)scheduler;
#endif
}

}  // namespace emu
