// Who runs when: threads and blocks in the order of the seed, late copies last of all, a report when nobody can go on.
#include <csignal>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <thread>

#include "asynchronous.h"
#include "collective.h"
#include "settings.h"

namespace emu {

thread_local Place* running = nullptr;

static void describe(const Where* where, const char* format, va_list arguments) {
    // One write, so that two OS threads' reports do not mix.
    char text[2048];
    int n = snprintf(text, sizeof text, "emulator: ");
    n += vsnprintf(text + n, sizeof text - n, format, arguments);
    if (n > 1500) n = 1500;
    if (running) {
        const Thread& t = self();
        n += snprintf(text + n, sizeof text - n, "\n  kernel %s, block (%u,%u,%u), thread (%u,%u,%u)",
                      t.home->cluster->launch->name, t.block.x, t.block.y, t.block.z, t.thread.x, t.thread.y, t.thread.z);
    }
    if (where) n += snprintf(text + n, sizeof text - n, "\n  at %s:%u", where->file_name(), where->line());
    fprintf(stderr, "%s\n", text);
    fflush(stderr);
    abort();
}

void report(const Where& where, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    describe(&where, format, arguments);
    abort();
}

void report(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    describe(nullptr, format, arguments);
    abort();
}

#if !WEIR_EMU_ASAN

/// A kernel's access to memory that is not there.
static void illegal(int, siginfo_t* about, void*) {
    signal(SIGABRT, SIG_DFL);
    if (!running) report("ILLEGAL ADDRESS %p, outside any kernel", about->si_addr);
    report("ILLEGAL ADDRESS %p in kernel %s", about->si_addr, self().home->cluster->launch->name);
}

/// Reports accesses to memory that is not there; the address sanitizer does it by itself. A stack of its own, since a fiber's
/// may be what has run out.
static void watch_addresses() {
    static thread_local char stack[64 * 1024];
    stack_t own{};
    own.ss_sp = stack;
    own.ss_size = sizeof stack;
    sigaltstack(&own, nullptr);
    struct sigaction action{};
    action.sa_sigaction = illegal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

#else

static void watch_addresses() {}

#endif

static uint64_t next(uint64_t& state) {
    state += 0x9E3779B97F4A7C15ull;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

uint64_t Cluster::draw(uint64_t n) {
    return next(random) % n;
}

void suspend(Waits what, const Where& where) {
    Thread& me = self();
    me.waits = what;
    me.where = where;
    switch_to(me.context, me.home->cluster->scheduler);
}

static void entry() {
    Cluster& cluster = *self().home->cluster;
    arrived(cluster.scheduler);
    cluster.launch->body(cluster.launch->arguments);
    Thread& me = self();
    finished(me);
    exited(me);
    me.waits = Waits::Done;
    cluster.alive--;
    cluster_exited(cluster);
    if (me.home->alive == 0) block_finished(*me.home);
    switch_to(me.context, cluster.scheduler, true);
    abort();
}

static const char* named(Waits waits) {
    switch (waits) {
        case Waits::Warp: return "for lanes of its warp";
        case Waits::Named: return "at a barrier of the block";
        case Waits::MBarrier: return "at an mbarrier";
        case Waits::Cluster: return "at the cluster's barrier";
        default: return "";
    }
}

/// Says, for each place where threads wait, how many and an example.
static void deadlock(const Cluster& cluster) {
    running = nullptr;
    struct Place {
        const Thread* example;
        unsigned threads;
    };
    std::vector<Place> places;
    unsigned done = 0;
    for (const Block& block : cluster.blocks)
        for (const Thread& t : block.threads) {
            if (t.waits == Waits::Done) {
                done++;
                continue;
            }
            bool known = false;
            for (Place& p : places)
                if (p.example->where.line() == t.where.line() && p.example->waits == t.waits && p.example->home == t.home) {
                    p.threads++;
                    known = true;
                }
            if (!known) places.push_back({&t, 1});
        }
    char text[1400];
    int n = 0;
    for (const Place& p : places)
        if (n < 1100)
            n += snprintf(text + n, sizeof text - n, "\n  %u threads, the first (%u,%u,%u) of block (%u,%u,%u), wait %s at %s:%u",
                          p.threads, p.example->thread.x, p.example->thread.y, p.example->thread.z, p.example->block.x,
                          p.example->block.y, p.example->block.z, named(p.example->waits),
                          p.example->where.file_name(), p.example->where.line());
    if (done) snprintf(text + n, sizeof text - n, "\n  %u threads have exited", done);
    report("DEADLOCK in kernel %s: no thread can go on%s", cluster.launch->name, text);
}

/// Bytes after the shared memory that nobody may touch; the address sanitizer has its own.
static constexpr size_t FENCE = WEIR_EMU_ASAN ? 0 : 256;
static constexpr unsigned char FENCE_BYTE = 0xA5;

static void start(Cluster& cluster, dim3 first) {
    const Launch& launch = *cluster.launch;
    const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
    cluster.stacks.reserve(cluster.blocks.size() * threads);
    cluster.alive = cluster.blocks.size() * threads;
    cluster.arrived = 0;
    cluster.phase = 0;
    for (size_t rank = 0; rank < cluster.blocks.size(); rank++) {
        Block& block = cluster.blocks[rank];
        block.cluster = &cluster;
        block.rank = rank;
        block.index = dim3(first.x + rank % launch.cluster.x, first.y + rank / launch.cluster.x % launch.cluster.y,
                           first.z + rank / (launch.cluster.x * launch.cluster.y));
        block.alive = threads;
        block.mbarriers.clear();
        for (NamedBarrier& b : block.barriers) b = NamedBarrier();
        block.shared_size = launch.shared;
        void* p = nullptr;
        if (posix_memalign(&p, 128, launch.shared + FENCE + (launch.shared + FENCE == 0))) report("no memory for shared memory");
        block.shared = (char*)p;
        memset(block.shared, 0xFF, launch.shared);
        memset(block.shared + launch.shared, FENCE_BYTE, FENCE);
        block.warps.resize((threads + 31) / 32);
        for (unsigned w = 0; w < block.warps.size(); w++)
            block.warps[w].alive = threads - w * 32 >= 32 ? ~0u : (1u << (threads - w * 32)) - 1;
        block.threads.resize(threads);
        for (unsigned i = 0; i < threads; i++) {
            Thread& t = block.threads[i];
            const Context context = t.context;
            t = Thread();
            t.context = context;
            t.home = &block;
            t.linear = i;
            t.rank = (unsigned)rank;
            t.shared = block.shared;
            t.block = block.index;
            t.block_size = launch.block;
            t.grid_size = launch.grid;
            t.thread = dim3(i % launch.block.x, i / launch.block.x % launch.block.y, i / (launch.block.x * launch.block.y));
            prepare(t.context, cluster.stacks.stack(rank * threads + i), entry);
        }
    }
}

static void stop(Cluster& cluster) {
    for (Block& block : cluster.blocks) {
        for (size_t i = 0; i < FENCE; i++)
            if ((unsigned char)block.shared[block.shared_size + i] != FENCE_BYTE)
                report("SHARED MEMORY OVERRUN: kernel %s, block (%u,%u,%u) wrote byte %zu of its %zu", cluster.launch->name,
                       block.index.x, block.index.y, block.index.z, block.shared_size + i, block.shared_size);
        free(block.shared);
    }
}

static void run_cluster(Cluster& cluster, dim3 first) {
    start(cluster, first);
    const bool shuffled = settings().seed != 0;
    cluster.random = settings().seed * 0x9E3779B97F4A7C15ull + first.x + 65537ull * first.y + 131071ull * first.z;
    std::vector<Thread*> order;
    for (Block& block : cluster.blocks)
        for (Thread& t : block.threads) order.push_back(&t);
    std::vector<Thread*> ready;
    while (cluster.alive) {
        ready.clear();
        for (Thread* t : order)
            if (t->waits == Waits::Ready) ready.push_back(t);
        if (ready.empty()) {
            if (!complete_one_bulk_copy(cluster)) deadlock(cluster);
            continue;
        }
        if (shuffled) {
            for (size_t i = ready.size(); i > 1; i--) std::swap(ready[i - 1], ready[cluster.draw(i)]);
            // Some get far ahead of others: half of the time a part of them has to wait for another turn.
            if (cluster.draw(2)) ready.resize(1 + cluster.draw(ready.size()));
        }
        for (Thread* t : ready) {
            running = t;
            switch_to(cluster.scheduler, t->context);
        }
    }
    running = nullptr;
    stop(cluster);
}

void run(const Launch& launch) {
    const dim3 clusters(launch.grid.x / launch.cluster.x, launch.grid.y / launch.cluster.y, launch.grid.z / launch.cluster.z);
    const size_t count = (size_t)clusters.x * clusters.y * clusters.z;
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t(0));
    uint64_t random = settings().seed + 77777;
    if (settings().seed)
        for (size_t i = count; i > 1; i--) std::swap(order[i - 1], order[next(random) % i]);
    std::atomic<size_t> taken{0};
    auto work = [&] {
        watch_addresses();
        Cluster cluster;
        cluster.launch = &launch;
        cluster.blocks = std::vector<Block>((size_t)launch.cluster.x * launch.cluster.y * launch.cluster.z);
        for (size_t k; (k = taken++) < count;) {
            const size_t i = order[k];
            run_cluster(cluster, dim3(i % clusters.x * launch.cluster.x, i / clusters.x % clusters.y * launch.cluster.y,
                                      i / ((size_t)clusters.x * clusters.y) * launch.cluster.z));
        }
    };
    const size_t workers = settings().workers < count ? settings().workers : count;
    if (workers <= 1) return work();
    std::vector<std::thread> threads;
    for (size_t i = 0; i < workers; i++) threads.emplace_back(work);
    for (std::thread& t : threads) t.join();
}

}  // namespace emu
