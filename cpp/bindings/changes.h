// Arrays to be written once nothing can fail any more.
#pragma once

#include <pybind11/pybind11.h>

#include <list>
#include <vector>

#include "bindings/arrays.h"

namespace instep::bindings {

/// What is to be written where: arrays alike.
class Changes {
public:
    Changes() = default;  ///< none
    /// Pairs of an array to write and one to read. Raises RuntimeError where they are not alike.
    explicit Changes(const py::object& pairs);
    std::size_t size() const { return elements_; }
    /// Reads them from others, each like the one before, which is left in its place.
    void read_from(std::vector<py::object>& others) noexcept;
    void write() const noexcept;
    /// Writes those whose index a condition holds for.
    template <class Condition>
    void write_where(const Condition& condition) const noexcept {
        std::size_t index = 0;
        for (const Change& change : changes_)
            if (condition(index++)) write(change);
    }
    int traverse(visitproc visit, void* arg) const;

private:
    struct Change {
        py::object to, from;
        Order order;
        std::size_t size;
        Stream target, source;
        std::vector<std::ptrdiff_t> strides[2];
    };
    static void write(const Change& change) noexcept;

    std::list<Change> changes_;  ///< where streams may point into
    std::size_t elements_ = 0;
};

}  // namespace instep::bindings
