// Gradients of some rows: instep.Rows, from Python to the engine.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/arrays.h"
#include "engine/rows.h"

namespace instep::bindings {

/// Which type of Python's they are, with attributes `ids` and `values`.
void know_rows(const py::object& type);

bool is_rows(py::handle object);

/// Reads one for a parameter; raises TypeError or ValueError for what does not fit. Returns the
/// array of values, which must be kept as long as the rows are read.
py::object read_rows(py::handle object, const View& param, const Name& name, Rows& to);

/// Reads ids alone, of Rows or of an array.
void read_ids(py::handle object, const View& param, const Name& name, Rows& to);

}  // namespace instep::bindings
