// Device and pinned memory: exact in size, poisoned, fenced, every range checked.
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "driver.h"

namespace emu {

/// Bytes behind an allocation that nobody may write; the address sanitizer has its own.
static constexpr size_t FENCE = WEIR_EMU_ASAN ? 0 : 256;
static constexpr unsigned char FENCE_BYTE = 0xA5;

using Allocations = std::map<uintptr_t, size_t>;
static Allocations device, host;

static size_t used(const Allocations& where) {
    size_t sum = 0;
    for (const auto& a : where) sum += a.second;
    return sum;
}

static Result take(Allocations& where, size_t bytes, const char* call, void** result) {
    if (bytes == 0) return refuse(INVALID_VALUE, "%s of 0 bytes", call);
    if (bytes > (size_t)1 << 32) return OUT_OF_MEMORY;
    if (&where == &device && used(device) + bytes > settings().memory) return OUT_OF_MEMORY;
    void* p = nullptr;
    if (posix_memalign(&p, 256, bytes + FENCE)) return OUT_OF_MEMORY;
    memset(p, 0xFF, bytes);
    memset((char*)p + bytes, FENCE_BYTE, FENCE);
    where[(uintptr_t)p] = bytes;
    *result = p;
    trace("%s: %zu bytes at %p", call, bytes, p);
    return SUCCESS;
}

static void check_fence(uintptr_t p, size_t bytes) {
    for (size_t i = 0; i < FENCE; i++)
        if (((unsigned char*)p)[bytes + i] != FENCE_BYTE)
            report("MEMORY OVERRUN: byte %zu behind the end of an allocation of %zu bytes was written", i, bytes);
}

static Result give(Allocations& where, uintptr_t p, const char* call) {
    const auto found = where.find(p);
    if (found == where.end()) return refuse(INVALID_VALUE, "%s: %#zx is no allocation", call, (size_t)p);
    check_fence(found->first, found->second);
    memset((void*)p, 0xFF, found->second);
    free((void*)p);
    where.erase(found);
    return SUCCESS;
}

static const Allocations::value_type* find(const Allocations& where, uintptr_t p, size_t bytes) {
    auto next = where.upper_bound(p);
    if (next == where.begin()) return nullptr;
    const auto& a = *--next;
    return p + bytes <= a.first + a.second ? &a : nullptr;
}

Result check_range(Pointer p, size_t bytes, const char* call) {
    if (find(device, p, bytes)) return SUCCESS;
    return refuse(INVALID_VALUE, "%s: %zu bytes at %#llx lie outside every allocation", call, bytes, p);
}

bool pinned(const void* p, size_t bytes) {
    return find(host, (uintptr_t)p, bytes) != nullptr;
}

void check_fences() {
    for (const auto& [p, bytes] : device) check_fence(p, bytes);
    for (const auto& [p, bytes] : host) check_fence(p, bytes);
}

/// What a copy reads of host memory: pageable memory at once, as the driver stages it; pinned memory when the copy runs.
static std::function<const void*()> source(const void* from, size_t bytes) {
    if (pinned(from, bytes)) return [from] { return from; };
    std::shared_ptr<char[]> staged(new char[bytes]);
    memcpy(staged.get(), from, bytes);
    return [staged] { return (const void*)staged.get(); };
}

static Result to_device(Pointer to, const void* from, size_t bytes, Stream& stream, const char* call) {
    if (bytes == 0) return SUCCESS;
    if (Result e = check_range(to, bytes, call)) return e;
    auto bytes_of = source(from, bytes);
    return enqueue(stream, [=] {
        memcpy((void*)to, bytes_of(), bytes);
        return SUCCESS;
    });
}

static Result to_host(void* to, Pointer from, size_t bytes, Stream& stream, const char* call) {
    if (bytes == 0) return SUCCESS;
    if (Result e = check_range(from, bytes, call)) return e;
    const Result e = enqueue(stream, [=] {
        memcpy(to, (void*)from, bytes);
        return SUCCESS;
    });
    if (e) return e;
    // Into pageable memory the driver returns only when the copy is done.
    return pinned(to, bytes) ? SUCCESS : drain(stream);
}

static Result within(Pointer to, Pointer from, size_t bytes, Stream& stream, const char* call) {
    if (bytes == 0) return SUCCESS;
    if (Result e = check_range(to, bytes, call)) return e;
    if (Result e = check_range(from, bytes, call)) return e;
    return enqueue(stream, [=] {
        memmove((void*)to, (void*)from, bytes);
        return SUCCESS;
    });
}

template <class T>
static Result fill(Pointer to, T value, size_t count, Stream& stream, const char* call) {
    if (count == 0) return SUCCESS;
    if (to % sizeof(T)) return refuse(INVALID_VALUE, "%s: misaligned", call);
    if (Result e = check_range(to, count * sizeof(T), call)) return e;
    return enqueue(stream, [=] {
        for (size_t i = 0; i < count; i++) ((T*)to)[i] = value;
        return SUCCESS;
    });
}

}  // namespace emu

using namespace emu;

#define ENTER(call) \
    Guard guard(lock); \
    if (Result e = usable(call)) return e
#define STREAM(handle, call) \
    Stream* stream = find_stream(handle); \
    if (!stream) return refuse(INVALID_HANDLE, "%s: no such stream", call)

API cuMemAlloc_v2(Pointer* p, size_t bytes) {
    ENTER("cuMemAlloc");
    return take(device, bytes, "cuMemAlloc", (void**)p);
}

API cuMemFree_v2(Pointer p) {
    ENTER("cuMemFree");
    if (!p) return SUCCESS;
    if (Result e = drain_all()) return e;
    return give(device, p, "cuMemFree");
}

API cuMemAllocAsync(Pointer* p, size_t bytes, void* handle) {
    ENTER("cuMemAllocAsync");
    STREAM(handle, "cuMemAllocAsync");
    (void)stream;
    return take(device, bytes, "cuMemAllocAsync", (void**)p);
}

API cuMemFreeAsync(Pointer p, void* handle) {
    ENTER("cuMemFreeAsync");
    STREAM(handle, "cuMemFreeAsync");
    if (!find(device, p, 1)) return refuse(INVALID_VALUE, "cuMemFreeAsync: %#llx is no allocation", p);
    return enqueue(*stream, [=] { return give(device, p, "cuMemFreeAsync"); });
}

API cuMemGetInfo_v2(size_t* available, size_t* total) {
    ENTER("cuMemGetInfo");
    *total = settings().memory;
    *available = *total - used(device);
    return SUCCESS;
}

API cuMemGetAddressRange_v2(Pointer* base, size_t* bytes, Pointer p) {
    ENTER("cuMemGetAddressRange");
    const auto* a = find(device, p, 1);
    if (!a) return NOT_FOUND;
    if (base) *base = a->first;
    if (bytes) *bytes = a->second;
    return SUCCESS;
}

API cuPointerGetAttribute(void* value, int which, Pointer p) {
    ENTER("cuPointerGetAttribute");
    const bool on_device = find(device, p, 1), on_host = find(host, p, 1);
    if (!on_device && !on_host) return INVALID_VALUE;
    switch (which) {
        case 1: *(void**)value = (void*)0x1000; return SUCCESS;              // context
        case 2: *(unsigned*)value = on_device ? 2 : 1; return SUCCESS;       // memory type
        case 9: *(int*)value = 0; return SUCCESS;                            // device
        default: return INVALID_VALUE;
    }
}

API cuMemHostAlloc(void** p, size_t bytes, unsigned) {
    ENTER("cuMemHostAlloc");
    return take(host, bytes, "cuMemHostAlloc", p);
}

API cuMemFreeHost(void* p) {
    ENTER("cuMemFreeHost");
    if (Result e = drain_all()) return e;
    return give(host, (uintptr_t)p, "cuMemFreeHost");
}

API cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* handle) {
    ENTER("cuMemcpyHtoDAsync");
    STREAM(handle, "cuMemcpyHtoDAsync");
    return to_device(to, from, bytes, *stream, "cuMemcpyHtoDAsync");
}

API cuMemcpyHtoD_v2(Pointer to, const void* from, size_t bytes) {
    ENTER("cuMemcpyHtoD");
    if (Result e = to_device(to, from, bytes, *find_stream(nullptr), "cuMemcpyHtoD")) return e;
    return drain_blocking();
}

API cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* handle) {
    ENTER("cuMemcpyDtoHAsync");
    STREAM(handle, "cuMemcpyDtoHAsync");
    return to_host(to, from, bytes, *stream, "cuMemcpyDtoHAsync");
}

API cuMemcpyDtoH_v2(void* to, Pointer from, size_t bytes) {
    ENTER("cuMemcpyDtoH");
    if (Result e = to_host(to, from, bytes, *find_stream(nullptr), "cuMemcpyDtoH")) return e;
    return drain_blocking();
}

API cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void* handle) {
    ENTER("cuMemcpyDtoDAsync");
    STREAM(handle, "cuMemcpyDtoDAsync");
    return within(to, from, bytes, *stream, "cuMemcpyDtoDAsync");
}

API cuMemcpyDtoD_v2(Pointer to, Pointer from, size_t bytes) {
    ENTER("cuMemcpyDtoD");
    return within(to, from, bytes, *find_stream(nullptr), "cuMemcpyDtoD");
}

API cuMemsetD8Async(Pointer to, unsigned char value, size_t count, void* handle) {
    ENTER("cuMemsetD8Async");
    STREAM(handle, "cuMemsetD8Async");
    return fill(to, value, count, *stream, "cuMemsetD8Async");
}

API cuMemsetD8_v2(Pointer to, unsigned char value, size_t count) {
    ENTER("cuMemsetD8");
    return fill(to, value, count, *find_stream(nullptr), "cuMemsetD8");
}

API cuMemsetD32Async(Pointer to, unsigned value, size_t count, void* handle) {
    ENTER("cuMemsetD32Async");
    STREAM(handle, "cuMemsetD32Async");
    return fill(to, value, count, *stream, "cuMemsetD32Async");
}

API cuMemsetD32_v2(Pointer to, unsigned value, size_t count) {
    ENTER("cuMemsetD32");
    return fill(to, value, count, *find_stream(nullptr), "cuMemsetD32");
}
