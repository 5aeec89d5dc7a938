// Hyperparameters from Python, by their names.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <stdexcept>
#include <string>
#include <string_view>

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

/// The same, or what another dict has in its place.
inline py::object entry(const py::dict& named, const py::dict& in_place, const char* name) {
    return entry(in_place.contains(name) ? in_place : named, name);
}

/// Reads each option of these, of which None leaves the default.
template <class AnyOptions>
AnyOptions options_from(const py::dict& values, const py::dict& in_place) {
    AnyOptions options;
    options.for_each([&]<class Value>(const char* name, Value& option) {
        const py::object value = entry(values, in_place, name);
        if (!value.is_none()) option = value.cast<Value>();
    });
    return options;
}

/// Sets the option of that name, if there is one.
template <class AnyOptions>
void set_option(AnyOptions& options, std::string_view name, double number) noexcept {
    options.for_each([&]<class Value>(const char* its_name, Value& option) {
        if (name == its_name) option = static_cast<Value>(number);
    });
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
inline RuleNumbers numbers_from(const py::dict& values, const py::dict& in_place,
                                const RuleInfo& rule) {
    RuleNumbers numbers{};
    for (int k = 0; k < rule.hyperparameter_count; ++k)
        numbers[static_cast<std::size_t>(k)] =
            entry(values, in_place, rule.hyperparameters[k]).cast<double>();
    return numbers;
}

/// Sets the one of that name, if there is one.
inline void set_number_of(const RuleInfo& rule, RuleNumbers& numbers, std::string_view name,
                          double number) noexcept {
    for (int k = 0; k < rule.hyperparameter_count; ++k)
        if (name == rule.hyperparameters[k]) numbers[static_cast<std::size_t>(k)] = number;
}

}  // namespace instep::bindings
