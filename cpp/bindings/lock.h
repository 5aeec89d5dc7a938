// Mutual exclusion for a few instructions that run no Python code.
#pragma once

#include <pybind11/pybind11.h>

namespace instep::bindings {

/// Keeps other threads out on free-threaded Python; elsewhere Python's own lock does.
struct Lock {
#if defined(Py_GIL_DISABLED)
    PyMutex mutex{};
    void lock() { PyMutex_Lock(&mutex); }
    void unlock() { PyMutex_Unlock(&mutex); }
#else
    void lock() {}
    void unlock() {}
#endif
};

class Locked {
public:
    explicit Locked(Lock& lock) : lock_(lock) { lock_.lock(); }
    ~Locked() { lock_.unlock(); }
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;

private:
    Lock& lock_;
};

}  // namespace instep::bindings
