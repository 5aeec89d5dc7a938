// A rule on bare arrays; see instep.kernels.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/lock.h"
#include "bindings/options.h"
#include "engine/registry.h"

namespace instep::bindings {

namespace py = pybind11;

class Kernel {
public:
    Kernel(const std::string& rule, std::size_t numbers, py::object check, py::object check_step);

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

    /// A copy: whatever Python runs next, another thread may call this kernel with others.
    Numbers check_numbers(PyObject* const* numbers, unsigned in_use);
    std::int64_t checked_step(PyObject* step, PyObject* const* numbers) const;

    const Rule& rule_;
    std::size_t slots_, scalars_, numbers_;
    py::object check_, check_step_;

    // What was checked last: the objects, and what they mean.
    Lock cache_;
    std::vector<py::object> checked_;
    unsigned checked_in_use_ = 0;
    Numbers meaning_;
};

}  // namespace instep::bindings
