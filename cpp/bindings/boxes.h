// The types of boxes: Tree, Bound, Kernel and Tensors.
#pragma once

#include <pybind11/pybind11.h>

namespace instep::bindings {

namespace py = pybind11;

/// Adds to the module:
///
/// `Tree(params, group_type)` and `Bound(rule, tree, slots, scalars, averages, accumulators,
/// others, copies, counters, orders)`; see tree.h and bound.h.
///
/// `Kernel(rule, numbers, check, check_step)`: a rule on bare arrays, called with positional
/// arguments only: param, grad, the state arrays (or None), scalars, step, and so many numbers.
/// What `check` returns for a tuple of the numbers and one of which state arrays there are, the
/// learning rate and a list of the rule's hyperparameters, is kept for as long as the same objects
/// come; `check_step` turns the step into an int.
///
/// `Tensors(groups, locals, look, counts)`: see tensors.h.
void add_boxes(py::module_& module);

}  // namespace instep::bindings
