#include "team.h"

#include <memory>
#include <vector>

namespace {

constexpr int SPINS = 20000;  // of an idle worker, about a millisecond: the next token is usually asked for sooner

struct Pool {
    std::mutex in_use;
    std::mutex lock;
    std::condition_variable wake;
    std::vector<std::thread> workers;
    std::atomic<uint64_t> call{0};
    std::atomic<int> running{0};
    std::atomic<int> asleep{0};
    const Work* work = nullptr;
    Team* team = nullptr;

    void ensure(int count) {
        while ((int)workers.size() < count) {
            int thread = (int)workers.size() + 1;
            uint64_t seen = call.load();
            workers.emplace_back([this, thread, seen] { serve(thread, seen); });
            workers.back().detach();
        }
    }

    void serve(int thread, uint64_t seen) {
        for (;;) {
            int spins = 0;
            while (call.load(std::memory_order_acquire) == seen) {
                if (++spins < SPINS) {
                    _mm_pause();
                    continue;
                }
                std::unique_lock<std::mutex> held(lock);
                asleep.fetch_add(1);
                wake.wait(held, [&] { return call.load() != seen; });
                asleep.fetch_sub(1);
            }
            seen = call.load(std::memory_order_acquire);
            Team* team = this->team;
            if (thread < team->size) (*work)(*team, thread);
            running.fetch_sub(1, std::memory_order_release);  // also who had no part in it: nobody is left behind a call
        }
    }

    void run(int threads, const Work& work) {
        ensure(threads - 1);
        Team team(threads);
        this->work = &work;
        this->team = &team;
        running.store((int)workers.size());
        {
            // under the lock, so that a worker about to sleep sees it
            std::lock_guard<std::mutex> held(lock);
            call.fetch_add(1, std::memory_order_release);
        }
        if (asleep.load() > 0) wake.notify_all();
        work(team, 0);
        for (int spins = 0; running.load(std::memory_order_acquire) > 0; spins++) {
            if (spins < 4096) _mm_pause();
            else sched_yield();
        }
    }
};

Pool* pool = nullptr;

// A forked child has no workers: it starts over with a pool of its own.
void forget_pool() { pool = new Pool; }

std::once_flag once;

}  // namespace

void run_team(int threads, const Work& work) {
    std::call_once(once, [] {
        pool = new Pool;
        pthread_atfork(nullptr, nullptr, forget_pool);
    });
    if (threads > 1 && pool->in_use.try_lock()) {
        pool->run(threads, work);
        pool->in_use.unlock();
    } else {
        Team alone(1);
        work(alone, 0);
    }
}
