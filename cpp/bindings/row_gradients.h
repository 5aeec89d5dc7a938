// Gradients of some rows: instep.Rows, from Python to the engine.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "engine/rows.h"

namespace instep::bindings {

/// Which type of Python's they are, with attributes `ids` and `values`.
void know_rows(const py::object& type);

bool is_rows(py::handle object);

/// An array as rows along its first axis.
struct Table {
    std::size_t rows;
    std::vector<py::ssize_t> row;  ///< the shape of each

    Table(std::size_t count, std::vector<py::ssize_t> shape) : rows(count), row(std::move(shape)) {}
    /// Raises TypeError for one without axes.
    Table(const View& array, const Name& name);
};

/// Reads one for a table; raises TypeError or ValueError for what does not fit. Returns the array
/// of values, which must be kept as long as the rows are read.
py::object read_rows(py::handle object, const Table& table, const Name& name, Rows& to);

/// Raises TypeError or ValueError for what does not fit.
void check_rows(py::handle object, const Table& table, const Name& name);

/// Reads ids alone, of Rows or of an array.
void read_ids(py::handle object, const Table& table, const Name& name, Rows& to);

}  // namespace instep::bindings
