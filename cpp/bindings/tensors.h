// Tensors of PyTorch's whose gradients are found anew in each step.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "bindings/arrays.h"

namespace instep::bindings {

/// A step of a small network takes less time than it takes Python to look at its tensors.
class Tensors {
public:
    /// Those that are trained; the parts of them that are in this process (`locals`); a function
    /// look(grad) that returns an array, or what else is a gradient here, and None or an array that
    /// stands for the same memory as long as gradients lie there; and float32 counts.
    Tensors(const py::list& params, const py::list& locals, py::object look, py::object counts);

    /// Whether the memory of one has become another since.
    py::bool_ have_moved() const;
    /// What `look` returns for the gradient of each, or None where there is none.
    py::list gradients();
    /// Adds one to the counts of those that had gradients, and returns which; None: all had.
    py::object count();

    /// For Python's garbage collector.
    int traverse(visitproc visit, void* arg) const;
    void clear();

private:
    /// A gradient's array, and of which memory and dtype it is.
    struct Seen {
        std::uintptr_t address = 0;
        py::object dtype, array;
    };
    struct Tensor {
        py::object param, local;
        std::uintptr_t address;  ///< of the local part
        Seen seen;
        bool has_gradient = false;
    };
    py::object gradient(Tensor& tensor);

    py::object data_ptr_, dtype_, grad_, is_contiguous_;  ///< names
    py::object look_, counts_;
    std::vector<Tensor> tensors_;
};

}  // namespace instep::bindings
