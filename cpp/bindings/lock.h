// Mutual exclusion for a few instructions that run no Python code.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>

namespace instep::bindings {

/// For std::unique_lock, which tries it: keeps other threads out on free-threaded Python; elsewhere
/// Python's own lock does. Nobody waits for it, as a fork may leave it taken for ever.
class Lock {
public:
#if defined(Py_GIL_DISABLED)
    bool try_lock() { return !taken_.test_and_set(std::memory_order_acquire); }
    void unlock() { taken_.clear(std::memory_order_release); }

private:
    std::atomic_flag taken_;
#else
    bool try_lock() { return true; }
    void unlock() {}
#endif
};

}  // namespace instep::bindings
