// Learning rates that change: any callable of Python's.
#pragma once

#include <pybind11/pybind11.h>

namespace instep::bindings {

namespace py = pybind11;

/// The learning rate that a schedule gives for an index. Raises TypeError or ValueError where it
/// gives anything but a finite number of at least 0.
double ask(const py::object& schedule, const py::object& index);

}  // namespace instep::bindings
