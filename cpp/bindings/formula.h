// Rules that are formulas, and rules by their name.
#pragma once

#include <pybind11/pybind11.h>

#include "engine/formula.h"

namespace instep::bindings {

namespace py = pybind11;

/// What Python needs to know of a rule: its slots as (name, optional), the name of the divisible
/// one, if there is one, those of the positive and the exact ones, of its hyperparameters and
/// scalars, and whether each element goes its own way.
py::dict described(const RuleInfo& rule);

/// A formula as Python's object.
class FormulaObject {
public:
    /// From a dict with the `rule`'s name, tuples of its `slots` and of those that are `positive`
    /// or `exact`, of its `hyperparameters` and `scalars`; `literals`; `numbers`, each the name of
    /// an operation and its operands; `constants`, each a number and a form; `becomes`, what
    /// becomes of scalars; `measure` and `update`, each instruction the name of an operation, where
    /// its result goes and its operands; `sums`, each two operands and whether it is over all
    /// arrays. Operands and numbers by index, as in engine/program.h. Raises ValueError where there
    /// are too many, or unknown ones.
    explicit FormulaObject(const py::dict& given);

    const Rule& rule() const { return formula_.rule(); }
    py::object info() const { return described(formula_.rule().info); }

    /// For Python's garbage collector.
    int traverse(visitproc, void*) const { return 0; }

private:
    Formula formula_;
};

/// A rule by its name, or that of a FormulaObject, as long as that lives. Raises ValueError where
/// there is none.
const Rule& rule_of(py::handle given);

/// Adds `Formula`, the operations that there are by name with the number of their operands
/// (`element_operations`, `number_operations`), and where indices begin (`program_layout`).
void add_formula(py::module_& module);

}  // namespace instep::bindings
