// Modules, functions, launches. A module's image decides which kernels it holds; the code is the host's.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "block.h"
#include "driver.h"

namespace emu {

struct Module {
    std::string ptx;  // none for a binary, which is taken to hold every kernel
};

static std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

static std::map<void*, std::unique_ptr<Module>> modules;

void add(const Kernel& kernel) {
    kernels()[kernel.name] = kernel;
}

Kernel* find_kernel(const char* name) {
    const auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

static Kernel* kernel_of(void* function) {
    for (auto& [name, kernel] : kernels())
        if (&kernel == function) return &kernel;
    return nullptr;
}

/// The newest PTX version, 10 major + minor, that a driver of this version takes.
static int newest_ptx(int driver) {
    const int major = driver / 1000, minor = driver % 1000 / 10;
    if (major >= 13) return 90 + minor;
    if (major == 12) return 80 + minor;
    return 70 + minor;
}

static Result check_ptx(const std::string& text) {
    const size_t version_at = text.find(".version"), target_at = text.find(".target");
    int major = 0, minor = 0, architecture = 0;
    char feature = 0;
    if (version_at == std::string::npos || sscanf(text.c_str() + version_at, ".version %d.%d", &major, &minor) != 2 ||
        target_at == std::string::npos || sscanf(text.c_str() + target_at, ".target sm_%d%c", &architecture, &feature) < 1)
        return refuse(INVALID_PTX, "cuModuleLoadData: PTX without .version or .target");
    if (major * 10 + minor > newest_ptx(settings().driver))
        return refuse(UNSUPPORTED_PTX_VERSION, "cuModuleLoadData: PTX %d.%d is newer than driver %d takes", major, minor, settings().driver);
    const int device = settings().major * 10 + settings().minor;
    if (architecture > device || (feature == 'a' && architecture != device))
        return refuse(NO_BINARY_FOR_GPU, "cuModuleLoadData: PTX for sm_%d%s on sm_%d", architecture, feature == 'a' ? "a" : "", device);
    return SUCCESS;
}

static Result launch(Kernel& kernel, dim3 grid, dim3 block, unsigned shared, Stream& stream, void** parameters) {
    const dim3 c = kernel.cluster;
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z)
        return refuse(INVALID_VALUE, "%s: a grid of %u x %u x %u blocks of %u x %u x %u threads", kernel.name, grid.x, grid.y, grid.z,
                      block.x, block.y, block.z);
    if (grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535 || block.x > 1024 || block.y > 1024 || block.z > 64)
        return refuse(INVALID_VALUE, "%s: grid or block too large in a dimension", kernel.name);
    const size_t threads = (size_t)block.x * block.y * block.z;
    if (threads > 1024) return refuse(INVALID_VALUE, "%s: %zu threads a block, 1024 are allowed", kernel.name, threads);
    if (kernel.max_threads && threads > kernel.max_threads)
        return refuse(LAUNCH_OUT_OF_RESOURCES, "%s: %zu threads a block, its __launch_bounds__ say %u", kernel.name, threads, kernel.max_threads);
    if (shared > (unsigned)kernel.dynamic_shared)
        return refuse(INVALID_VALUE, "%s: %u bytes of shared memory, %d are allowed (MAX_DYNAMIC_SHARED_SIZE_BYTES)", kernel.name, shared,
                      kernel.dynamic_shared);
    if (grid.x % c.x || grid.y % c.y || grid.z % c.z)
        return refuse(INVALID_CLUSTER_SIZE, "%s: a grid of %u x %u x %u does not divide into clusters of %u x %u x %u", kernel.name,
                      grid.x, grid.y, grid.z, c.x, c.y, c.z);
    if (c.x * c.y * c.z > 1 && settings().major < 9) return refuse(INVALID_CLUSTER_SIZE, "%s: clusters on sm_%d", kernel.name, settings().major * 10);
    if (!parameters) return refuse(INVALID_VALUE, "%s: no kernelParams", kernel.name);
    std::shared_ptr<void> arguments(kernel.take(parameters), kernel.drop);
    return enqueue(stream, [&kernel, arguments, grid, block, shared] {
        trace("%s: grid %u x %u x %u, block %u x %u x %u, %u bytes of shared memory", kernel.name, grid.x, grid.y, grid.z, block.x, block.y,
              block.z, shared);
        Launch l;
        l.name = kernel.name;
        l.grid = grid;
        l.block = block;
        l.cluster = kernel.cluster;
        l.shared = shared;
        l.body = kernel.body;
        l.arguments = arguments.get();
        run(l);
        check_fences();
        return SUCCESS;
    });
}

}  // namespace emu

using namespace emu;

#define ENTER(call) \
    Guard guard(lock); \
    if (Result e = usable(call)) return e
#define KERNEL(function, call) \
    Kernel* kernel = kernel_of(function); \
    if (!kernel) return refuse(INVALID_HANDLE, "%s: no such function", call)

API cuModuleLoadData(void** handle, const void* image) {
    ENTER("cuModuleLoadData");
    if (!image) return refuse(INVALID_VALUE, "cuModuleLoadData: no image");
    auto module = std::make_unique<Module>();
    const char* text = (const char*)image;
    const bool elf = !strncmp(text, "\x7f" "ELF", 4), fat = !strncmp(text, "\x50\xed\x55\xba", 4);
    // An empty image holds every kernel too: for tests whose launcher carries no code.
    if (!elf && !fat && *text) {
        module->ptx = text;
        if (module->ptx.find(".version") == std::string::npos) return refuse(INVALID_IMAGE, "cuModuleLoadData: neither PTX nor a binary");
        if (Result e = check_ptx(module->ptx)) return e;
    }
    trace("module: %s", elf ? "CUBIN" : fat ? "fat binary" : *text ? "PTX" : "empty");
    *handle = module.get();
    modules[*handle] = std::move(module);
    return SUCCESS;
}

API cuModuleLoadDataEx(void** handle, const void* image, unsigned, int*, void**) {
    return cuModuleLoadData(handle, image);
}

API cuModuleLoad(void** handle, const char* path) {
    ENTER("cuModuleLoad");
    FILE* f = fopen(path, "rb");
    if (!f) return refuse(301, "cuModuleLoad: %s cannot be opened", path);
    std::string image;
    char part[4096];
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) image.append(part, n);
    fclose(f);
    return cuModuleLoadData(handle, image.c_str());
}

API cuModuleUnload(void* handle) {
    ENTER("cuModuleUnload");
    if (Result e = drain_all()) return e;
    return modules.erase(handle) ? SUCCESS : refuse(INVALID_HANDLE, "cuModuleUnload: no such module");
}

API cuModuleGetFunction(void** function, void* handle, const char* name) {
    ENTER("cuModuleGetFunction");
    const auto found = modules.find(handle);
    if (found == modules.end()) return refuse(INVALID_HANDLE, "cuModuleGetFunction: no such module");
    const std::string& ptx = found->second->ptx;
    if (!ptx.empty() && ptx.find(std::string(".entry ") + name + "(") == std::string::npos)
        return refuse(NOT_FOUND, "cuModuleGetFunction: the PTX has no .entry %s(", name);
    Kernel* kernel = find_kernel(name);
    if (!kernel) return refuse(NOT_FOUND, "cuModuleGetFunction: no kernel %s was compiled into the emulator", name);
    *function = kernel;
    return SUCCESS;
}

API cuFuncSetAttribute(void* function, int which, int value) {
    ENTER("cuFuncSetAttribute");
    KERNEL(function, "cuFuncSetAttribute");
    if (which == 8) {
        if (value < 0 || value > shared_memory_limit())
            return refuse(INVALID_VALUE, "cuFuncSetAttribute: %s: %d bytes of shared memory, the device has %d a block", kernel->name, value,
                          shared_memory_limit());
        kernel->dynamic_shared = value;
    }
    return SUCCESS;
}

API cuFuncGetAttribute(int* value, int which, void* function) {
    ENTER("cuFuncGetAttribute");
    KERNEL(function, "cuFuncGetAttribute");
    switch (which) {
        case 0: *value = kernel->max_threads ? (int)kernel->max_threads : 1024; break;
        case 4: *value = 64; break;                                               // registers: not known here
        case 5: case 6: *value = settings().major * 10 + settings().minor; break;
        case 8: *value = kernel->dynamic_shared; break;
        default: *value = 0;
    }
    return SUCCESS;
}

API cuFuncSetCacheConfig(void* function, int) {
    ENTER("cuFuncSetCacheConfig");
    KERNEL(function, "cuFuncSetCacheConfig");
    return SUCCESS;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void* function, int threads, size_t shared, unsigned) {
    ENTER("cuOccupancyMaxActiveBlocksPerMultiprocessor");
    KERNEL(function, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
    if (threads < 1 || threads > 1024) return INVALID_VALUE;
    const int by_threads = 2048 / threads, by_registers = 65536 / (64 * threads);
    const int by_shared = (int)((shared_memory_limit() + 1024) / (shared + 1024));
    *blocks = std::min({by_threads, by_registers, by_shared, 32});
    return SUCCESS;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t shared) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}

API cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, void* function, int blocks, int) {
    ENTER("cuOccupancyAvailableDynamicSMemPerBlock");
    KERNEL(function, "cuOccupancyAvailableDynamicSMemPerBlock");
    if (blocks < 1) return INVALID_VALUE;
    const int each = (shared_memory_limit() + 1024) / blocks - 1024;
    *bytes = (size_t)(each > 0 ? each : 0);
    return SUCCESS;
}

API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void* handle, void** parameters, void** extra) {
    ENTER("cuLaunchKernel");
    KERNEL(function, "cuLaunchKernel");
    Stream* stream = find_stream(handle);
    if (!stream) return refuse(INVALID_HANDLE, "cuLaunchKernel: no such stream");
    if (extra) return refuse(NOT_SUPPORTED, "cuLaunchKernel: arguments by `extra` are not emulated");
    return launch(*kernel, dim3(gx, gy, gz), dim3(bx, by, bz), shared, *stream, parameters);
}

API cuLaunchCooperativeKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**) {
    return refuse(NOT_SUPPORTED, "cuLaunchCooperativeKernel: blocks that wait for each other are not emulated");
}
