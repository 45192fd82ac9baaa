// How lanes of a warp meet.
#pragma once
#include <cstring>

#include "block.h"

namespace emu {

/// Shows `slot` to the lanes in `mask`, waits for theirs. `aligned`: all must come from the same place in the source, and
/// none may have exited. The result is this lane's to read until it calls `leave`.
Rendezvous* meet(uint32_t mask, const Slot& slot, const char* operation, bool aligned, const Where& where);
void leave(Rendezvous* r);

/// The others do not wait for a thread that has exited.
void exited(Thread& me);

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

}  // namespace emu
