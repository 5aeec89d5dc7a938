// Hyperparameters from Python, by their names.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <stdexcept>
#include <string>

#include "engine/kernels.h"
#include "engine/options.h"

namespace instep::bindings {

namespace py = pybind11;

/// What a dict holds under a name. Our own Python puts it there, so that only a name that is
/// spelled differently here can be missing.
inline py::object entry(const py::dict& named, const char* name) {
    PyObject* const found = PyDict_GetItemWithError(named.ptr(), py::str(name).ptr());
    if (found) return py::reinterpret_borrow<py::object>(found);
    if (PyErr_Occurred()) throw py::error_already_set();
    throw std::runtime_error(std::string("expected an entry '") + name + "'");
}

/// Reads each option of these, of which None leaves the default.
template <class AnyOptions>
AnyOptions options_from(const py::dict& values) {
    AnyOptions options;
    options.for_each([&]<class Value>(const char* name, Value& option) {
        const py::object value = entry(values, name);
        if (!value.is_none()) option = value.cast<Value>();
    });
    return options;
}

/// The names of all of them.
template <class AnyOptions>
py::tuple names_of() {
    py::list names;
    AnyOptions().for_each([&](const char* name, auto&) { names.append(name); });
    return py::tuple(names);
}

/// A rule's own numbers, in its order.
using RuleNumbers = std::array<double, max_hyperparameters>;
inline RuleNumbers numbers_from(const py::dict& values, const RuleInfo& rule) {
    RuleNumbers numbers{};
    for (int k = 0; k < rule.hyperparameter_count; ++k)
        numbers[static_cast<std::size_t>(k)] =
            entry(values, rule.hyperparameters[k]).cast<double>();
    return numbers;
}

}  // namespace instep::bindings
