#include "bindings/row_gradients.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "bindings/unlocked.h"

namespace instep::bindings {
namespace {

PyObject* rows_type = nullptr;  // instep's own, there as long as the module is

std::string text_of(const std::vector<py::ssize_t>& shape) {
    return py::str(py::tuple(py::cast(shape)));
}

std::vector<py::ssize_t> shape_of(const py::array& array) {
    return {array.shape(), array.shape() + array.ndim()};
}

/// Calls visit(pointer) for each element, in C order.
template <class Visit>
void for_each_element(const py::array& array, Visit visit) {
    const auto axes = static_cast<std::size_t>(array.ndim());
    const char* at = static_cast<const char*>(array.data());
    const py::ssize_t item = array.itemsize();
    if (array.flags() & py::array::c_style) {
        for (py::ssize_t left = array.size(); left > 0; --left, at += item) visit(at);
        return;
    }
    std::vector<py::ssize_t> index(axes);
    for (py::ssize_t left = array.size(); left > 0; --left) {
        visit(at);
        for (std::size_t axis = axes; axis-- > 0;) {
            const auto its = static_cast<py::ssize_t>(axis);
            at += array.strides(its);
            if (++index[axis] < array.shape(its)) break;
            at -= array.strides(its) * array.shape(its);
            index[axis] = 0;
        }
    }
}

template <class Id>
void add_ids(const py::array& ids, std::size_t count, const Name& name, Rows& to) {
    for_each_element(ids, [&](const char* at) {
        Id id;
        std::memcpy(&id, at, sizeof id);
        if (!std::cmp_less(id, count) || std::cmp_less(id, 0)) {
            // Positions are told as those of the ids that were given.
            std::size_t position = to.positions();
            std::vector<py::ssize_t> index(static_cast<std::size_t>(ids.ndim()));
            for (std::size_t axis = index.size(); axis-- > 0;) {
                const auto extent =
                    static_cast<std::size_t>(ids.shape(static_cast<py::ssize_t>(axis)));
                index[axis] = static_cast<py::ssize_t>(position % extent);
                position /= extent;
            }
            throw py::value_error(name + ": expected ids of rows from 0 to " +
                                  std::to_string(static_cast<long long>(count) - 1) + ", got " +
                                  std::to_string(id) + " at position " + text_of(index));
        }
        to.add(static_cast<std::size_t>(id));
    });
}

/// Raises for what are no ids of a table's rows.
void check_ids(const py::array& ids, const Table& table, const Name& name) {
    const char kind = ids.dtype().kind();
    if ((kind != 'i' && kind != 'u') || !View(ids).is_native())
        throw py::type_error(name + ": expected ids that are integers, got a " + description(ids));
    if (static_cast<std::size_t>(ids.size()) > Rows::most || table.rows > Rows::most)
        throw py::value_error(name + ": expected at most 4294967295 rows and ids");
}

/// Adds all of them.
void add_all(const py::array& ids, const Table& table, const Name& name, Rows& to) {
    const char kind = ids.dtype().kind();
    const std::size_t count = table.rows;
    to.reserve(static_cast<std::size_t>(ids.size()));
    to.length = 1;
    for (const py::ssize_t extent : table.row) to.length *= static_cast<std::size_t>(extent);
    switch (ids.itemsize()) {
        case 1:
            kind == 'i' ? add_ids<std::int8_t>(ids, count, name, to)
                        : add_ids<std::uint8_t>(ids, count, name, to);
            break;
        case 2:
            kind == 'i' ? add_ids<std::int16_t>(ids, count, name, to)
                        : add_ids<std::uint16_t>(ids, count, name, to);
            break;
        case 4:
            kind == 'i' ? add_ids<std::int32_t>(ids, count, name, to)
                        : add_ids<std::uint32_t>(ids, count, name, to);
            break;
        default:
            kind == 'i' ? add_ids<std::int64_t>(ids, count, name, to)
                        : add_ids<std::uint64_t>(ids, count, name, to);
    }
}

/// Between the values of neighbouring positions, in bytes; nothing where those, or the elements of
/// a row, do not lie one after the other.
std::optional<std::ptrdiff_t> stride_of_positions(const py::array& values, py::ssize_t id_axes) {
    py::ssize_t expected = values.itemsize();
    for (py::ssize_t axis = values.ndim(); axis-- > id_axes;) {
        if (values.shape(axis) != 1 && values.strides(axis) != expected) return std::nullopt;
        expected *= values.shape(axis);
    }
    std::optional<std::ptrdiff_t> stride;
    py::ssize_t next = 0;
    for (py::ssize_t axis = id_axes; axis-- > 0;) {
        if (values.shape(axis) == 1) continue;
        if (!stride)
            stride = values.strides(axis);
        else if (values.strides(axis) != next)
            return std::nullopt;
        next = values.strides(axis) * values.shape(axis);
    }
    return stride ? stride : expected;
}

}  // namespace

void know_rows(const py::object& type) {
    rows_type = type.ptr();
    Py_INCREF(rows_type);
}

bool is_rows(py::handle object) {
    return rows_type && reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == rows_type;
}

Table::Table(const View& array, const Name& name) : rows(0) {
    if (array.ndim() == 0)
        throw py::type_error(name + ": expected an array, as the parameter has no rows, got Rows");
    rows = static_cast<std::size_t>(array.extent(0));
    for (int axis = 1; axis < array.ndim(); ++axis) row.push_back(array.extent(axis));
}

void read_ids(py::handle object, const Table& table, const Name& name, Rows& to) {
    const auto ids = py::reinterpret_steal<py::array>(
        is_rows(object) ? PyObject_GetAttrString(object.ptr(), "ids") : object.inc_ref().ptr());
    if (!ids) throw py::error_already_set();
    if (!is_array(ids))
        throw py::type_error(name + ": expected Rows, an array of ids or None, got " +
                             description(ids));
    check_ids(ids, table, name);
    add_all(ids, table, name, to);
    to.sort();
}

namespace {

/// Adds ids, and returns the values.
py::array read_in_order(py::handle object, const Table& table, const Name& name, Rows& to) {
    const auto ids = py::reinterpret_steal<py::array>(PyObject_GetAttrString(object.ptr(), "ids"));
    auto values = py::reinterpret_steal<py::array>(PyObject_GetAttrString(object.ptr(), "values"));
    if (!ids || !values) throw py::error_already_set();
    if (!is_array(ids) || !is_array(values))
        throw py::type_error(name + ": expected Rows of NumPy arrays, got ids that are " +
                             description(ids) + " and values that are " + description(values));
    check_ids(ids, table, name);
    std::vector<py::ssize_t> expected = shape_of(ids);
    expected.insert(expected.end(), table.row.begin(), table.row.end());
    check_values(values, name);
    if (shape_of(values) != expected)
        throw py::value_error(name + ": expected values of shape " + text_of(expected) +
                              ", a row of shape " + text_of(table.row) +
                              " for each of the ids, whose shape is " + text_of(shape_of(ids)) +
                              ", got " + text_of(shape_of(values)));
    std::optional<std::ptrdiff_t> stride = stride_of_positions(values, ids.ndim());
    if (!stride) {
        values = py::array(py::module_::import("numpy").attr("ascontiguousarray")(values));
        stride = stride_of_positions(values, ids.ndim());
    }
    add_all(ids, table, name, to);
    to.stride = *stride;
    return values;
}

}  // namespace

void check_rows(py::handle object, const Table& table, const Name& name) {
    Rows rows;
    read_in_order(object, table, name, rows);
}

py::object read_rows(py::handle object, const Table& table, const Name& name, Rows& to) {
    py::array values = read_in_order(object, table, name, to);
    to.sort();
    to.values = View(values).data();
    to.format = View(values).format();
    to.divisor = 1;
    return values;
}

}  // namespace instep::bindings
