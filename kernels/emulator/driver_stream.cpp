// Streams and events. Eager streams run their work when it comes; lazy ones (WEIR_EMU_LAZY=1) only when something waits for
// them, so that work which nobody waited for has not happened, and its output is still poison.
#include <chrono>
#include <deque>
#include <map>
#include <memory>

#include "driver.h"

namespace emu {

struct Stream {
    bool blocking = true;  // waits for the legacy default stream, and that for it
    int priority = 0;
    std::deque<std::function<Result()>> work;
    uint64_t queued = 0, done = 0;  // pieces of work so far
    bool draining = false;
    Result failed = SUCCESS;
};

struct Event {
    bool timed = true;
    Stream* stream = nullptr;  // null: never recorded
    uint64_t position = 0;
    std::shared_ptr<std::chrono::steady_clock::time_point> time;
};

static Stream legacy;
static std::map<void*, std::unique_ptr<Stream>> streams;
static std::map<void*, std::unique_ptr<Event>> events;

Stream* find_stream(void* handle) {
    // 1 is the legacy default stream by name, 2 the thread's own, which is the same here.
    if ((uintptr_t)handle <= 2) return &legacy;
    const auto found = streams.find(handle);
    return found == streams.end() ? nullptr : found->second.get();
}

/// Runs the stream's work until `position` pieces are done.
static Result drain_to(Stream& stream, uint64_t position) {
    while (stream.done < position && !stream.work.empty() && !stream.draining) {
        const auto work = std::move(stream.work.front());
        stream.work.pop_front();
        stream.draining = true;
        const Result e = work();
        stream.draining = false;
        stream.done++;
        if (e && !stream.failed) stream.failed = e;
    }
    return stream.failed;
}

static Result push(Stream& stream, std::function<Result()> work) {
    stream.work.push_back(std::move(work));
    stream.queued++;
    return settings().lazy ? SUCCESS : drain_to(stream, stream.queued);
}

/// Work that waits until `other` has done what it holds now.
static Result wait_for(Stream& stream, Stream& other) {
    if (other.work.empty()) return SUCCESS;
    return push(stream, [&other, position = other.queued] { return drain_to(other, position); });
}

Result enqueue(Stream& stream, std::function<Result()> work) {
    if (&stream == &legacy) {
        for (const auto& [handle, other] : streams)
            if (other->blocking)
                if (Result e = wait_for(legacy, *other)) return e;
    } else if (stream.blocking) {
        if (Result e = wait_for(stream, legacy)) return e;
    }
    return push(stream, std::move(work));
}

Result drain(Stream& stream) {
    return drain_to(stream, stream.queued);
}

Result drain_blocking() {
    Result first = drain(legacy);
    for (const auto& [handle, stream] : streams)
        if (stream->blocking)
            if (Result e = drain(*stream); e && !first) first = e;
    return first;
}

Result drain_all() {
    Result first = drain(legacy);
    for (const auto& [handle, stream] : streams)
        if (Result e = drain(*stream); e && !first) first = e;
    return first;
}

}  // namespace emu

using namespace emu;

#define ENTER(call) \
    Guard guard(lock); \
    if (Result e = usable(call)) return e
#define STREAM(handle, call) \
    Stream* stream = find_stream(handle); \
    if (!stream) return refuse(INVALID_HANDLE, "%s: no such stream", call)
#define EVENT(handle, name, call) \
    const auto name##_found = events.find(handle); \
    if (name##_found == events.end()) return refuse(INVALID_HANDLE, "%s: no such event", call); \
    Event* name = name##_found->second.get()

API cuStreamCreateWithPriority(void** handle, unsigned flags, int priority) {
    ENTER("cuStreamCreate");
    auto stream = std::make_unique<Stream>();
    stream->blocking = !(flags & 1);
    stream->priority = priority;
    *handle = stream.get();
    streams[*handle] = std::move(stream);
    return SUCCESS;
}

API cuStreamCreate(void** handle, unsigned flags) {
    return cuStreamCreateWithPriority(handle, flags, 0);
}

API cuStreamDestroy_v2(void* handle) {
    ENTER("cuStreamDestroy");
    const auto found = streams.find(handle);
    if (found == streams.end()) return refuse(INVALID_HANDLE, "cuStreamDestroy: no such stream");
    // What the stream holds still happens; here, now.
    drain(*found->second);
    for (auto& [h, event] : events)
        if (event->stream == found->second.get()) event->stream = nullptr;
    streams.erase(found);
    return SUCCESS;
}

API cuStreamSynchronize(void* handle) {
    ENTER("cuStreamSynchronize");
    STREAM(handle, "cuStreamSynchronize");
    if (stream == &legacy) return drain_blocking();
    return drain(*stream);
}

API cuStreamQuery(void* handle) {
    ENTER("cuStreamQuery");
    STREAM(handle, "cuStreamQuery");
    if (stream->work.empty()) return stream->failed;
    // A loop that asks until it is done must end, so each question is worth one piece of work.
    drain_to(*stream, stream->done + 1);
    return NOT_READY;
}

API cuStreamWaitEvent(void* handle, void* of, unsigned) {
    ENTER("cuStreamWaitEvent");
    STREAM(handle, "cuStreamWaitEvent");
    EVENT(of, event, "cuStreamWaitEvent");
    if (!event->stream || event->stream == stream) return SUCCESS;
    return push(*stream, [from = event->stream, position = event->position] { return drain_to(*from, position); });
}

API cuStreamIsCapturing(void* handle, int* status) {
    ENTER("cuStreamIsCapturing");
    STREAM(handle, "cuStreamIsCapturing");
    (void)stream;
    *status = 0;
    return SUCCESS;
}

API cuStreamGetCtx(void* handle, void** context) {
    ENTER("cuStreamGetCtx");
    STREAM(handle, "cuStreamGetCtx");
    (void)stream;
    *context = (void*)0x1000;
    return SUCCESS;
}

API cuStreamGetPriority(void* handle, int* priority) {
    ENTER("cuStreamGetPriority");
    STREAM(handle, "cuStreamGetPriority");
    *priority = stream->priority;
    return SUCCESS;
}

API cuLaunchHostFunc(void* handle, void (*call)(void*), void* data) {
    ENTER("cuLaunchHostFunc");
    STREAM(handle, "cuLaunchHostFunc");
    return enqueue(*stream, [=] {
        call(data);
        return SUCCESS;
    });
}

API cuEventCreate(void** handle, unsigned flags) {
    ENTER("cuEventCreate");
    auto event = std::make_unique<Event>();
    event->timed = !(flags & 2);
    *handle = event.get();
    events[*handle] = std::move(event);
    return SUCCESS;
}

API cuEventDestroy_v2(void* handle) {
    ENTER("cuEventDestroy");
    return events.erase(handle) ? SUCCESS : refuse(INVALID_HANDLE, "cuEventDestroy: no such event");
}

API cuEventRecord(void* handle, void* on) {
    ENTER("cuEventRecord");
    EVENT(handle, event, "cuEventRecord");
    STREAM(on, "cuEventRecord");
    auto time = std::make_shared<std::chrono::steady_clock::time_point>();
    event->time = time;
    event->stream = stream;
    event->position = stream->queued + 1;
    return push(*stream, [time] {
        *time = std::chrono::steady_clock::now();
        return SUCCESS;
    });
}

API cuEventSynchronize(void* handle) {
    ENTER("cuEventSynchronize");
    EVENT(handle, event, "cuEventSynchronize");
    return event->stream ? drain_to(*event->stream, event->position) : SUCCESS;
}

API cuEventQuery(void* handle) {
    ENTER("cuEventQuery");
    EVENT(handle, event, "cuEventQuery");
    if (!event->stream || event->stream->done >= event->position) return SUCCESS;
    drain_to(*event->stream, event->stream->done + 1);
    return NOT_READY;
}

API cuEventElapsedTime(float* milliseconds, void* from, void* to) {
    ENTER("cuEventElapsedTime");
    EVENT(from, start, "cuEventElapsedTime");
    EVENT(to, end, "cuEventElapsedTime");
    if (!start->timed || !end->timed || !start->time || !end->time)
        return refuse(INVALID_HANDLE, "cuEventElapsedTime: an event was not recorded, or made without timing");
    if ((start->stream && start->stream->done < start->position) || (end->stream && end->stream->done < end->position)) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return SUCCESS;
}

API cuEventElapsedTime_v2(float* milliseconds, void* from, void* to) {
    return cuEventElapsedTime(milliseconds, from, to);
}
