// Mutual exclusion for a few instructions that run no Python code.
#pragma once

#include <pybind11/pybind11.h>

namespace instep::bindings {

/// For std::lock_guard: keeps other threads out on free-threaded Python; elsewhere Python's own
/// lock does.
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

}  // namespace instep::bindings
