#include "bindings/changes.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace instep::bindings {

Changes::Changes(const py::object& pairs) {
    for (const py::handle pair : pairs) {
        auto [to, from] = pair.cast<std::pair<py::object, py::object>>();
        const bool is_coded = is_array(to) && !View(to).stored();
        const bool are_numbers = !is_coded && is_usable(to, true) && is_usable(from, false);
        const bool are_codes = is_coded && is_array(from) && View(from).same_type(View(to)) &&
                               View(to).item() <= sizeof(std::uint16_t);
        if (!(are_numbers || are_codes) || !View(to).same_shape(View(from)))
            throw std::runtime_error("expected arrays alike, got a " + description(from) +
                                     " for a " + description(to));
        Change& change =
            changes_.emplace_back(Change{to, from, Order(View(to)), View(to).size(), {}, {}, {}});
        change.target = change.order.stream(View(to), change.strides[0]);
        change.source = change.order.stream(View(from), change.strides[1]);
        if (is_coded)  // as bytes: which coding it is matters elsewhere
            change.target.coding = change.source.coding =
                View(to).item() == 1 ? Coding::float8 : Coding::remainder;
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
    if (change.target.coding != Coding::none)
        return copy_items(change.order.shape, change.size, change.source, change.target);
    copy_numbers(change.order.shape, change.size, change.source, change.target);
}

}  // namespace instep::bindings
