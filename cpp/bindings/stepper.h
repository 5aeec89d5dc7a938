// The type that is called at every step.
#pragma once

#include <pybind11/pybind11.h>

namespace instep::bindings {

namespace py = pybind11;

/// Adds to the module `Stepper`, the base of optimizers, whom one thread at a time may step or
/// change. Its attribute `_binding` is None or an object whose `core` is the Bound that `step`
/// steps, and whose `configuration` is what that is told of the hyperparameters, `_values`. Both
/// change together, by `_install`.
void add_stepper(py::module_& module);

}  // namespace instep::bindings
