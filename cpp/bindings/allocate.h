// Memory for state, which lives as long as any array in it.
#pragma once

#include <pybind11/numpy.h>

#include <optional>
#include <vector>

namespace instep::bindings {

namespace py = pybind11;

/// Zeros whose memory nobody can resize, close or give back: it belongs to a capsule. `place`: so
/// many bytes behind the begin of a page, where the array is to have pages of its own. Raises
/// MemoryError.
py::array zeros(const std::vector<py::ssize_t>& shape, const py::dtype& dtype,
                const std::optional<std::vector<py::ssize_t>>& strides,
                std::optional<std::size_t> place);

/// Another array of the same memory, which leads back to nothing but the capsule.
py::array alias(const py::array& array);

}  // namespace instep::bindings
