#include "bindings/changes.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace instep::bindings {

Changes::Changes(const py::object& pairs) {
    for (const py::handle pair : pairs) {
        auto [to, from] = pair.cast<std::pair<py::object, py::object>>();
        if (!is_usable(to, true) || !is_usable(from, false) ||
            View(to).format() != View(from).format() || !View(to).same_shape(View(from)))
            throw std::runtime_error("expected arrays alike, got a " + description(from) +
                                     " for a " + description(to));
        Change& change =
            changes_.emplace_back(Change{to, from, Order(View(to)), View(to).size(), {}, {}, {}});
        change.target = change.order.stream(View(to), change.strides[0]);
        change.source = change.order.stream(View(from), change.strides[1]);
        elements_ += change.size;
    }
}

void Changes::read_from(std::vector<py::object>& others) noexcept {
    auto other = others.begin();
    for (Change& change : changes_) {
        std::swap(change.from, *other++);
        change.source.data = View(change.from).data();
    }
}

int Changes::traverse(visitproc visit, void* arg) const {
    for (const Change& change : changes_) {
        Py_VISIT(change.to.ptr());
        Py_VISIT(change.from.ptr());
    }
    return 0;
}

void Changes::write() const noexcept {
    for (const Change& change : changes_) write(change);
}

void Changes::write(const Change& change) noexcept {
    alignas(double) char buffer[tile_elements * sizeof(double)];
    for (std::size_t done = 0; done < change.size; done += tile_elements) {
        const std::size_t count = std::min(tile_elements, change.size - done);
        const Precision precision = precision_of(change.source.format);
        gather(change.order.shape, change.source, done, count, precision, buffer);
        scatter(change.order.shape, change.target, done, count, precision, buffer);
    }
}

}  // namespace instep::bindings
