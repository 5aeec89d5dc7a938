// Numbers to and from the codings in which state may be kept, for Python.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace instep::bindings {

namespace py = pybind11;

/// Writes numbers in a coding, and what it keeps beside them, if anything: contiguous arrays.
/// Random bits are those of an update with the key 0.
void encode(const py::object& numbers, const std::string& coding, const py::object& codes,
            const py::object& beside);
/// Reads them.
void decode(const py::object& codes, const std::string& coding, const py::object& beside,
            const py::object& numbers);

}  // namespace instep::bindings
