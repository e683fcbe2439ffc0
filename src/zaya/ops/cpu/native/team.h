// A team of threads that runs one function at a time, all of them the whole of it.
//
// Inside, work is taken in chunks from a shared counter, and `meet` is the barrier between two phases. Threads spin at
// it: a phase of a decoded token lasts microseconds, a thread that sleeps takes longer to wake than that.

#pragma once

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

class Team {
public:
    explicit Team(int size) : size(size) {}

    const int size;

    // The next chunk of this phase, or -1 where there are no more of `count`.
    int take(int count) {
        int chunk = next_.fetch_add(1, std::memory_order_relaxed);
        return chunk < count ? chunk : -1;
    }

    // Wait for all; what was written before is seen by all after.
    void meet() {
        if (size == 1) {
            next_.store(0, std::memory_order_relaxed);
            return;
        }
        uint32_t phase = phase_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            arrived_.store(0, std::memory_order_relaxed);
            next_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; spins++) {
            if (spins < 4096) _mm_pause();
            else sched_yield();  // who is missing may be waiting for our core
        }
    }

private:
    alignas(64) std::atomic<int> next_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> phase_{0};
};

using Work = std::function<void(Team&, int thread)>;

// Run on up to `threads` threads, the calling one included. Calls from several threads at once each get what is free:
// the first the workers, the others themselves alone.
void run_team(int threads, const Work& work);
