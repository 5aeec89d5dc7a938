// Hyperparameters as attributes of optimizers.
#pragma once

#include <pybind11/pybind11.h>

namespace instep::bindings {

/// Adds the type `Attribute` to the module: what a stepper's hyperparameter is in its class.
void add_attribute(pybind11::module_& module);

}  // namespace instep::bindings
