// A rule on bare arrays; see instep.kernels.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/limits.h"
#include "bindings/lock.h"
#include "bindings/options.h"
#include "engine/optimizer.h"

namespace instep::bindings {

namespace py = pybind11;

class Kernel {
public:
    /// `rule` is as for `rule_of`. `arguments` are those that decide on its numbers, the learning
    /// rate first: of each its name, its limits (see limits.h), and whether it matters elsewhere if
    /// it is 0.
    ///
    /// check(arguments, whether each slot is given) returns hyperparameters by name, what the
    /// engine is told in place of options and of the rule's numbers of a name, and the set of those
    /// arguments that something else hangs on. check_step(step, arguments) returns the count of the
    /// update. An Ellipsis stands for what is left out.
    Kernel(py::object rule, const py::list& arguments, py::object check, py::object check_step);

    /// Takes the parameter, its gradient, slots, scalars, an Ellipsis, the count, those arguments,
    /// and, each or None, where the updated parameter goes, and what rounding to 16 bits leaves out
    /// of it: the remainder, or the master; as in boxes.h.
    void run(PyObject* const* arguments, std::size_t count);

    /// For Python's garbage collector.
    int traverse(visitproc visit, void* arg) const;
    void clear();

private:
    struct Argument {
        py::object name;
        Limits limits;
        bool is_switch;
        int number;                     ///< which of the rule's it may be; negative: none
        double GroupOptions::* option;  ///< which option it may be; null: none
    };
    /// What was checked last: the objects, what they mean, and how others change that.
    struct Checked {
        std::vector<py::object> given;
        unsigned in_use = 0;
        Group meaning;
        std::vector<bool> is_tied, is_number, is_option;
    };

    /// A copy: whatever Python runs next, another thread may call this kernel with others.
    Group check_numbers(PyObject* const* given, unsigned in_use);
    /// Finds what arguments mean that differ from those checked last only where nothing else hangs
    /// on it; or returns false.
    bool find_meaning(PyObject* const* given, Group& meaning) const;
    std::int64_t checked_step(PyObject* step, PyObject* const* given) const;

    py::object rule_object_;  ///< keeps what the engine knows of it
    const Rule& rule_;
    std::size_t slots_, scalars_;
    std::vector<Argument> arguments_;
    py::object check_, check_step_;

    Lock cache_;
    Checked checked_;
};

/// One update by a rule whose arrays of state depend on the shape of the parameter; `told` is what
/// `check` of a kernel returns.
void update(const py::object& rule, const py::object& param, const py::object& grad,
            const py::object& out, const py::dict& state, const py::dict& parts, std::int64_t step,
            const py::tuple& told);

}  // namespace instep::bindings
