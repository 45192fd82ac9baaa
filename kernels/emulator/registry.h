// Kernels by name. For each .cu the tests write a .cpp that includes it and registers what it finds there.
#pragma once
#include <tuple>
#include <type_traits>

#include "thread.h"

namespace emu {

struct Kernel {
    const char* name;
    dim3 cluster;
    unsigned max_threads;  // of __launch_bounds__, 0: none
    /// Copies the arguments that cuLaunchKernel's `parameters` point to.
    void* (*take)(void** parameters);
    void (*body)(const void* arguments);
    void (*drop)(void* arguments);
    /// What the launcher has allowed (cuFuncSetAttribute).
    int dynamic_shared = 48 * 1024;
};

void add(const Kernel& kernel);
Kernel* find_kernel(const char* name);

template <auto F>
struct Signature;
template <class... A, void (*F)(A...)>
struct Signature<F> {
    using Arguments = std::tuple<std::remove_cv_t<A>...>;
    template <size_t... I>
    static void* take(void** parameters, std::index_sequence<I...>) {
        return new Arguments(*(std::remove_cv_t<A>*)parameters[I]...);
    }
    static void* take(void** parameters) { return take(parameters, std::index_sequence_for<A...>{}); }
    static void body(const void* arguments) { std::apply(F, *(const Arguments*)arguments); }
    static void drop(void* arguments) { delete (Arguments*)arguments; }
};

/// `static emu::Register<kernel> r("kernel", dim3(1, 1, 1), 256);` at file scope.
template <auto F>
struct Register {
    Register(const char* name, dim3 cluster, unsigned max_threads) {
        add({name, cluster, max_threads, &Signature<F>::take, &Signature<F>::body, &Signature<F>::drop});
    }
};

}  // namespace emu
