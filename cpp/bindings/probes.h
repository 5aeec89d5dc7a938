// What benchmarks and tests ask of the engine.
#pragma once

#include <pybind11/pybind11.h>

namespace instep::bindings {

namespace py = pybind11;

/// Adds to the module `touch`, `tuning`, `new_choice`, `choose`, `fused_square_roots` and
/// `processor_quota`.
void add_probes(py::module_& module);

}  // namespace instep::bindings
