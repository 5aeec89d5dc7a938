#include "bindings/schedule.h"

#include <cmath>

#include "bindings/arrays.h"
#include "bindings/unlocked.h"

namespace instep::bindings {

double ask(const py::object& schedule, const py::object& index) {
    const py::object given = call(schedule, index);
    const auto shown = [&] {
        try {
            return representation_of(given);
        } catch (const py::error_already_set&) {  // an enormous number, say
            return description(given);
        }
    };
    double rate = PyFloat_AsDouble(given.ptr());
    if (rate == -1 && PyErr_Occurred()) {
        const bool is_too_large = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
        if (!is_too_large && !PyErr_ExceptionMatches(PyExc_TypeError))
            throw py::error_already_set();
        PyErr_Clear();
        if (!is_too_large)
            throw py::type_error("learning_rate: expected the schedule to return a float, got " +
                                 shown());
        rate = HUGE_VAL;
    }
    if (!(rate >= 0) || std::isinf(rate))
        throw py::value_error(
            "learning_rate: expected the schedule to return a finite number >= 0, got " + shown());
    return rate;
}

}  // namespace instep::bindings
