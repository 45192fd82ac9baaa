// Settings, devices, contexts, errors.
#include "driver.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emu {

std::recursive_mutex lock;

static unsigned long number(const char* name, unsigned long otherwise) {
    const char* text = getenv(name);
    if (!text || !*text) return otherwise;
    char* end = nullptr;
    const unsigned long v = strtoul(text, &end, 10);
    if (*end) report("%s=%s is no number", name, text);
    return v;
}

const Settings& settings() {
    static const Settings all = [] {
        Settings s;
        s.seed = number("WEIR_EMU_SEED", 0);
        if (const char* copies = getenv("WEIR_EMU_CP")) {
            if (strcmp(copies, "late") && strcmp(copies, "early")) report("WEIR_EMU_CP=%s: late or early", copies);
            s.late = !strcmp(copies, "late");
        }
        s.workers = (unsigned)number("WEIR_EMU_WORKERS", 1);
        s.lazy = number("WEIR_EMU_LAZY", 0) != 0;
        s.multiprocessors = (int)number("WEIR_EMU_SMS", 132);
        if (const char* capability = getenv("WEIR_EMU_CC"))
            if (sscanf(capability, "%d.%d", &s.major, &s.minor) != 2) report("WEIR_EMU_CC=%s: write it as 9.0", capability);
        s.driver = (int)number("WEIR_EMU_DRIVER", 13000);
        s.memory = number("WEIR_EMU_MEMORY", s.memory);
        s.trace = number("WEIR_EMU_TRACE", 0) != 0;
        return s;
    }();
    return all;
}

void trace(const char* format, ...) {
    if (!settings().trace) return;
    va_list arguments;
    va_start(arguments, format);
    fputs("driver: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

Result refuse(Result code, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("emulator: refused: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return code;
}

static bool initialised = false;
static thread_local void* current = nullptr;
static int retained = 0;
static void* const PRIMARY = (void*)0x1000;

Result usable(const char* call) {
    trace("%s", call);
    if (!initialised) return refuse(NOT_INITIALIZED, "%s before cuInit", call);
    if (!current) return refuse(INVALID_CONTEXT, "%s: no context is current on this thread", call);
    return SUCCESS;
}

int shared_memory_limit() {
    const int capability = settings().major * 10 + settings().minor;
    if (capability >= 120) return 101376;
    if (capability >= 90) return 232448;
    if (capability == 86 || capability == 89) return 101376;
    if (capability >= 80) return 166912;
    if (capability == 75) return 65536;
    return 98304;
}

/// Values by the numbers of CUdevice_attribute.
static int attribute(int which) {
    const Settings& s = settings();
    switch (which) {
        case 1: return 1024;                          // threads a block
        case 2: case 3: return 1024;                  // block x, y
        case 4: return 64;                            // block z
        case 5: return 2147483647;                    // grid x
        case 6: case 7: return 65535;                 // grid y, z
        case 8: return 49152;                         // shared memory a block, without opting in
        case 9: return 65536;                         // constant memory
        case 10: return 32;                           // warp
        case 12: return 65536;                        // registers a block
        case 13: return 1980000;                      // clock, kHz
        case 16: return s.multiprocessors;
        case 31: case 41: return 1;                   // concurrent kernels, unified addresses
        case 36: return 3201000;                      // memory clock, kHz
        case 37: return 6144;                         // memory bus, bits
        case 38: return 60 << 20;                     // L2
        case 39: return 2048;                         // threads a multiprocessor
        case 40: return 3;                            // copy engines
        case 75: return s.major;
        case 76: return s.minor;
        case 81: return shared_memory_limit() + 1024; // shared memory a multiprocessor
        case 82: return 65536;                        // registers a multiprocessor
        case 97: return shared_memory_limit();        // shared memory a block, opting in
        case 106: return 32;                          // blocks a multiprocessor
        case 111: return 1024;                        // shared memory that the system keeps, a block
        case 115: return 1;                           // memory pools
        case 120: return s.major >= 9;                // clusters
        default: return 0;
    }
}

struct Name {
    Result code;
    const char *name, *text;
};

static const Name NAMES[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {INVALID_CLUSTER_SIZE, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "cluster misconfiguration"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};

}  // namespace emu

using namespace emu;

API cuInit(unsigned flags) {
    if (flags) return refuse(INVALID_VALUE, "cuInit: flags must be 0");
    initialised = true;
    return SUCCESS;
}

API cuDriverGetVersion(int* version) {
    *version = settings().driver;
    return SUCCESS;
}

API cuDeviceGetCount(int* count) {
    if (!initialised) return NOT_INITIALIZED;
    *count = 1;
    return SUCCESS;
}

API cuDeviceGet(int* device, int ordinal) {
    if (!initialised) return NOT_INITIALIZED;
    *device = 0;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}

API cuDeviceGetName(char* name, int size, int device) {
    if (device || size < 1) return INVALID_VALUE;
    snprintf(name, (size_t)size, "weir emulator, sm_%d%d", settings().major, settings().minor);
    return SUCCESS;
}

API cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
    if (device) return INVALID_DEVICE;
    memset(uuid, 0, 16);
    return SUCCESS;
}

API cuDeviceGetUuid(unsigned char* uuid, int device) {
    return cuDeviceGetUuid_v2(uuid, device);
}

API cuDeviceTotalMem_v2(size_t* bytes, int device) {
    if (device) return INVALID_DEVICE;
    *bytes = (size_t)1 << 30;
    return SUCCESS;
}

API cuDeviceGetAttribute(int* value, int which, int device) {
    if (device) return INVALID_DEVICE;
    *value = attribute(which);
    return SUCCESS;
}

API cuDeviceGetPCIBusId(char* text, int size, int device) {
    if (device || size < 13) return INVALID_VALUE;
    snprintf(text, (size_t)size, "0000:00:00.0");
    return SUCCESS;
}

API cuDevicePrimaryCtxRetain(void** context, int device) {
    Guard guard(lock);
    if (!initialised) return NOT_INITIALIZED;
    if (device) return INVALID_DEVICE;
    retained++;
    *context = PRIMARY;
    return SUCCESS;
}

API cuDevicePrimaryCtxRelease_v2(int device) {
    Guard guard(lock);
    if (device) return INVALID_DEVICE;
    if (retained == 0) return refuse(INVALID_CONTEXT, "cuDevicePrimaryCtxRelease: released more often than retained");
    retained--;
    return SUCCESS;
}

API cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
    if (device) return INVALID_DEVICE;
    *flags = 0;
    *active = retained > 0;
    return SUCCESS;
}

API cuCtxSetCurrent(void* context) {
    if (context && context != PRIMARY) return refuse(INVALID_CONTEXT, "cuCtxSetCurrent: no such context");
    current = context;
    return SUCCESS;
}

API cuCtxGetCurrent(void** context) {
    if (!initialised) return NOT_INITIALIZED;
    *context = current;
    return SUCCESS;
}

API cuCtxPushCurrent_v2(void* context) {
    return cuCtxSetCurrent(context);
}

API cuCtxPopCurrent_v2(void** context) {
    if (context) *context = current;
    current = nullptr;
    return SUCCESS;
}

API cuCtxGetDevice(int* device) {
    if (Result e = usable("cuCtxGetDevice")) return e;
    *device = 0;
    return SUCCESS;
}

API cuCtxSynchronize() {
    Guard guard(lock);
    if (Result e = usable("cuCtxSynchronize")) return e;
    return drain_all();
}

API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return SUCCESS;
}

API cuGetErrorName(Result code, const char** text) {
    for (const Name& n : NAMES)
        if (n.code == code) {
            *text = n.name;
            return SUCCESS;
        }
    *text = "CUDA_ERROR_UNKNOWN";
    return SUCCESS;
}

API cuGetErrorString(Result code, const char** text) {
    for (const Name& n : NAMES)
        if (n.code == code) {
            *text = n.text;
            return SUCCESS;
        }
    *text = "unknown error";
    return SUCCESS;
}
