// What numbers may be, as python/instep/_kinds.py declares it.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <optional>

#include "bindings/arrays.h"

namespace instep::bindings {

namespace py = pybind11;

/// The range of a number. Knows plain numbers only: what else may stand for one, and what is wrong
/// with it, says Python.
class Limits {
public:
    /// Of what is no number.
    Limits() = default;
    /// From the least and the greatest, ints where the number must be whole; or from None.
    explicit Limits(const py::object& told) {
        if (told.is_none()) return;
        const py::tuple pair = told;
        is_whole_ = PyLong_CheckExact(py::object(pair[0]).ptr());
        least_ = pair[0].cast<double>();
        greatest_ = pair[1].cast<double>();
        constexpr double greatest_exact = 0x1p53 - 1;
        if (is_whole_) greatest_ = std::min(greatest_, greatest_exact);
    }

    /// The object as a number, if it is one in these limits.
    std::optional<double> number(py::handle object) const {
        if (!is_plain_number(object) || (is_whole_ && !PyLong_CheckExact(object.ptr())))
            return std::nullopt;
        const double number = PyFloat_AsDouble(object.ptr());
        if (number == -1 && PyErr_Occurred())
            PyErr_Clear();  // a large int: not in any limits
        else if (least_ <= number && number <= greatest_)
            return number;
        return std::nullopt;
    }
    bool is_whole() const { return is_whole_; }

private:
    bool is_whole_ = false;
    double least_ = 1, greatest_ = 0;
};

}  // namespace instep::bindings
