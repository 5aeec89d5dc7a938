// Work on arrays: without Python's lock where that pays, and with forks kept waiting.
#pragma once

#include <pybind11/pybind11.h>

#if defined(__GLIBCXX__)
#include <cxxabi.h>
#endif

#include <optional>
#include <string>

#include "engine/fork.h"

namespace instep::bindings {

namespace py = pybind11;

/// Work on more elements than this takes longer than handing over Python's lock.
inline constexpr std::size_t elements_worth_releasing = 8192;

/// Calls a function that may wait for Python's lock. Where the interpreter shuts down meanwhile, it
/// ends this thread by unwinding, which would clean up what is gone already: the thread rests until
/// the process ends instead, as from Python 3.14 on.
template <class Function>
auto outlive(Function function) {
#if defined(__GLIBCXX__)
    try {
        return function();
    } catch (abi::__forced_unwind&) {
        for (;;) pause();
    }
#else
    return function();
#endif
}

/// What a function of CPython's gives, which may run any code; raises its error.
template <class Function>
py::object result_of(Function function) {
    PyObject* const result = outlive(function);
    if (!result) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

/// Calls an object, as Python does.
template <class... Arguments>
py::object call(const py::object& callable, const Arguments&... given) {
    const py::tuple arguments = py::make_tuple(given...);
    return result_of([&] { return PyObject_CallObject(callable.ptr(), arguments.ptr()); });
}

inline std::string text_of(py::handle object) {
    return py::str(result_of([&] { return PyObject_Str(object.ptr()); }));
}

inline std::string representation_of(py::handle object) {
    return py::str(result_of([&] { return PyObject_Repr(object.ptr()); }));
}

/// Gives Python's lock to other threads for as long as it lives.
class Unlocked {
public:
    Unlocked() : state_(PyEval_SaveThread()) {}
    ~Unlocked() {
        outlive([this] { PyEval_RestoreThread(state_); });
    }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

private:
    PyThreadState* state_;
};

/// Calls a function that reads and writes so many elements and needs nothing of Python.
template <class Function>
auto work(std::size_t elements, Function function) {
    const bool is_long = elements >= elements_worth_releasing;
#if !defined(Py_GIL_DISABLED)
    if (!is_long) return function();  // nobody else can fork, for want of the lock
#endif
    std::optional<Unlocked> unlocked;
    if (is_long) unlocked.emplace();
    const InFlight in_flight;
    return function();
}

}  // namespace instep::bindings
