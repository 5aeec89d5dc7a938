// What is called at every step, as plain CPython types: their calls cost a tenth of pybind11's.
#pragma once

#include <pybind11/pybind11.h>

namespace instep::bindings {

namespace py = pybind11;

/// Adds to the module:
///
/// `Stepper`, the base of optimizers, whom one thread at a time may step or change. Its attribute
/// `_binding` is None or an object whose `core` is the Bound that `step` steps, and whose
/// `configuration` is what that is told of the hyperparameters, `_values`. Both change together, by
/// `_install`.
///
/// `Kernel(rule, numbers, check, check_step)`: a rule on bare arrays, called with positional
/// arguments only: param, grad, the state arrays (or None), scalars, step, and so many numbers.
/// What `check` returns for a tuple of the numbers and one of which state arrays there are, the
/// learning rate and a list of the rule's hyperparameters, is kept for as long as the same objects
/// come; `check_step` turns the step into an int.
void add_calls(py::module_& module);

}  // namespace instep::bindings
