// What threads of a warp or block do together.
#pragma once
#include <cstring>

#include "block.h"

namespace emu {

/// Shows `slot` to the lanes in `mask`, waits for theirs. `aligned`: all must come from the same place in the source, and
/// none may have exited. The result is this lane's to read until it calls `leave`.
Rendezvous* meet(uint32_t mask, const Slot& slot, const char* operation, bool aligned, const Where& where);
void leave(Rendezvous* r);

/// Barrier `id` of `threads` threads (0: all that have not exited). Returns what `count_of` says over all.
int barrier(unsigned id, unsigned threads, bool yes, Sum sum, const Where& where);

template <class T>
Slot slot_of(const T& v) {
    static_assert(sizeof(T) <= sizeof(Slot));
    Slot s;
    memcpy(s.bytes, &v, sizeof(T));
    return s;
}

template <class T>
T from_slot(const Slot& s) {
    T v;
    memcpy(&v, s.bytes, sizeof(T));
    return v;
}

/// The value of lane `source` of the warp.
template <class T>
T shuffle(uint32_t mask, const T& v, unsigned source, const char* operation, const Where& where) {
    Rendezvous* r = meet(mask, slot_of(v), operation, false, where);
    source &= 31;
    if (!(r->arrived >> source & 1)) report(where, "%s reads lane %u, which takes no part", operation, source);
    T result = from_slot<T>(r->slot[source]);
    leave(r);
    return result;
}

/// The others do not wait for a thread that has exited.
void exited(Thread& me);

uint32_t ballot(uint32_t mask, bool yes, const char* operation, const Where& where);

}  // namespace emu
