// The tensors of one of PyTorch's optimizers, at which each step looks anew.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "bindings/arrays.h"
#include "bindings/dlpack.h"

namespace instep::bindings {

/// A step of a small network takes less time than it takes Python to look at its tensors.
class Tensors {
public:
    /// Their type; lists of those that are trained, one of each group; the parts of them that are
    /// in this process (`locals`); a function look(grad) that returns an array, or what else is a
    /// gradient here, and None or an array that stands for the same memory as long as gradients lie
    /// there; and float32 counts.
    Tensors(py::object type, const py::list& groups, const py::list& locals, py::object look,
            py::object counts);

    /// Takes what an optimizer has as state, and the counts, for what they are to stay.
    void remember(const py::dict& state);
    /// Whether somebody has put something else in the place of a tensor, of its memory or of what
    /// was remembered: in an optimizer's groups or in its state.
    py::bool_ have_changed(const py::list& groups, const py::dict& state) const;
    /// What `look` returns for the gradient of each, or None where there is none: a list for each
    /// group.
    py::list gradients();
    /// Adds one to the counts of those that had gradients, and returns which; None: all had.
    py::object count();

    /// For Python's garbage collector.
    int traverse(visitproc visit, void* arg) const;
    void clear();

private:
    /// A gradient's array, and where the gradient was.
    struct Seen {
        Layout layout;
        py::object array;
    };
    struct Tensor {
        py::object param, local;
        Layout layout;  ///< of the local part
        float count = 0;
        Seen seen;
        bool has_gradient = false;
    };
    py::object gradient(Tensor& tensor);
    bool describe(const py::object& tensor, DlTensor& described) const;
    bool is_negated(const py::object& tensor) const;
    bool holds(const py::list& groups) const;
    bool remembers(const py::dict& state) const;
    float* counts() const { return reinterpret_cast<float*>(View(counts_).data()); }

    py::object grad_, is_neg_, params_;  ///< names
    Exchange exchange_;
    py::object type_, look_, counts_;
    std::vector<py::ssize_t> sizes_;  ///< of groups
    std::vector<py::object> state_;   ///< keys and values, and those of these
    std::vector<Tensor> tensors_;
};

}  // namespace instep::bindings
