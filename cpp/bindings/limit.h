// The machine's limit, measured on NumPy arrays by instep's benchmark.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace instep::bindings {

/// Adds each gradient to each array of the list beside it, `repeats` times over. All of them
/// C-contiguous, those of one list of one dtype and of the gradient's shape.
void touch(const pybind11::list& grads, const pybind11::list& written, std::int64_t repeats);

}  // namespace instep::bindings
