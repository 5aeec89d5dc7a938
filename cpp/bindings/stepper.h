// The type that is called at every step.
#pragma once

#include <pybind11/pybind11.h>

namespace instep::bindings {

namespace py = pybind11;

/// The value of a stepper's hyperparameter.
py::object hyperparameter(py::handle stepper, py::handle name);

/// Makes a number of its hyperparameters another one, as a float or an int. False where something
/// else hangs on that number, or what it was is none: the change is `_assign`'s then.
bool change_number(py::handle stepper, py::handle name, double number, bool is_whole);

/// Adds to the module `Stepper`, the base of optimizers, whom one thread at a time may step or
/// change. Its attribute `_binding` is None or an object whose `core` is the Bound that `step`
/// steps, and whose `configuration` is what that is told of the hyperparameters, `_values`. Both
/// change together, by `_install` or, for numbers that nothing else hangs on, `change_number`.
void add_stepper(py::module_& module);

}  // namespace instep::bindings
