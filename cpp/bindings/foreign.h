// Arrays of other libraries, which NumPy sees by DLPack or by `__array__`.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/arrays.h"

namespace instep::bindings {

/// Whether an object is no array of NumPy's, but something that can be seen as one.
bool is_foreign(py::handle object);
/// NumPy's view of it, to be read. Runs other libraries' code; raises TypeError.
py::object foreign_gradient(py::handle object, const Name& name);
/// NumPy's view of the same memory, to be updated in place.
py::object foreign_parameter(py::handle object, const Name& name);

}  // namespace instep::bindings
