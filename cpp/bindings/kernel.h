// A rule on bare arrays; see instep.kernels.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings/limits.h"
#include "bindings/lock.h"
#include "bindings/options.h"
#include "engine/registry.h"

namespace instep::bindings {

namespace py = pybind11;

class Kernel {
public:
    /// `arguments` are its numbers, the learning rate first: of each its name, its limits (see
    /// limits.h), and whether slots hang on it not being 0.
    Kernel(const std::string& rule, const py::list& arguments, py::object check,
           py::object check_step);

    /// Arguments as in boxes.h.
    void run(PyObject* const* arguments, std::size_t count);

    /// For Python's garbage collector.
    int traverse(visitproc visit, void* arg) const;
    void clear();

private:
    struct Numbers {
        double learning_rate = 0;
        RuleNumbers own{};
    };
    struct Argument {
        py::object name;
        std::string text;  ///< the same
        Limits limits;
        bool is_switch;
    };

    /// A copy: whatever Python runs next, another thread may call this kernel with others.
    Numbers check_numbers(PyObject* const* numbers, unsigned in_use);
    /// What numbers mean that differ from those checked last only where nothing else hangs on it.
    std::optional<Numbers> meaning_of(PyObject* const* numbers) const;
    std::int64_t checked_step(PyObject* step, PyObject* const* numbers) const;

    const Rule& rule_;
    std::size_t slots_, scalars_;
    std::vector<Argument> numbers_;
    py::object check_, check_step_;

    // What was checked last: the objects, what they mean, and on which of them something hangs.
    Lock cache_;
    std::vector<py::object> checked_;
    unsigned checked_in_use_ = 0;
    Numbers meaning_;
    std::vector<bool> tied_;
};

}  // namespace instep::bindings
