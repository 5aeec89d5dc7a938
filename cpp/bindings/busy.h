// One thread at a time.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "bindings/unlocked.h"
#include "engine/fork.h"

namespace instep::bindings {

/// Whether a thread works on an object: others wait. What threads were doing that a fork left
/// behind does not count in the child.
class Busy {
public:
    /// Raises RuntimeError where this very thread is at work, which would wait for itself, and
    /// where user code keeps the one that is for long: it may wait for us. Signals such as Ctrl-C
    /// end the waiting.
    void lock() {
        using Clock = std::chrono::steady_clock;
        constexpr auto patience = std::chrono::seconds(1);
        const std::thread::id me = std::this_thread::get_id();
        for (Clock::time_point asking_since = Clock::time_point::max();;) {
            std::uint64_t since = since_;
            const bool is_free = since == 0 || !goes_on(thread_, since - 1);
            if (is_free && since_.compare_exchange_strong(since, fork_count() + 1)) break;
            if (is_free) continue;
            const Clock::time_point now = Clock::now();
            asking_since = asks_ ? std::min(asking_since, now) : Clock::time_point::max();
            if (thread_ == me || (asks_ && now - asking_since > patience))
                throw std::runtime_error("this optimizer is in the middle of a step");
            wait();
        }
        thread_.store(me, std::memory_order_relaxed);
        set_asks(false);  // of one that a fork left behind
    }
    void unlock() noexcept {
        set_asks(false);
        thread_.store({}, std::memory_order_relaxed);
        since_.store(0, std::memory_order_release);
    }
    /// Whether it is this thread that is at work.
    bool is_mine() const {
        const std::uint64_t since = since_;
        const std::thread::id me = std::this_thread::get_id();
        return since != 0 && thread_ == me && goes_on(me, since - 1);
    }
    /// Whether the thread at work runs user code.
    void set_asks(bool whether) noexcept { asks_.store(whether, std::memory_order_relaxed); }

private:
    static void wait() {
        if (PyErr_CheckSignals()) throw py::error_already_set();
        const Unlocked unlocked;
        pause();
    }

    std::atomic<std::uint64_t> since_{0};  ///< how many forks there had been, plus 1; 0: free
    std::atomic<std::thread::id> thread_{};
    std::atomic<bool> asks_{false};
};

/// Is at work on an object for as long as it lives.
using AtWork = std::lock_guard<Busy>;

}  // namespace instep::bindings
