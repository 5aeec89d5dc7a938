#include "bindings/overlap.h"

#include "bindings/unlocked.h"

#include <algorithm>
#include <iterator>

namespace instep::bindings {
namespace {

/// NumPy's exact answer; a question that it finds too hard counts as yes.
bool share_bytes(py::handle a, py::handle b) {
    constexpr int max_work = 1000000;
    try {
        const py::module_ numpy = py::module_::import("numpy");
        const py::object plain = numpy.attr("asarray");  // a subclass might answer itself
        return call(numpy.attr("shares_memory"), call(plain, a), call(plain, b), max_work)
            .cast<bool>();
    } catch (py::error_already_set& error) {
        if (!error.matches(PyExc_RuntimeError)) throw;
        return true;
    }
}

bool same_view(const View& a, const View& b) {
    if (a.data() != b.data() || !a.same_shape(b) || !a.same_format(b) || a.item() != b.item())
        return false;
    for (int axis = 0; axis < a.ndim(); ++axis)
        if (a.stride(axis) != b.stride(axis)) return false;
    return true;
}

}  // namespace

void Memory::add(py::handle array, const Name& name) {
    const Bounds bounds = View(array).bounds();
    if (bounds.low < bounds.high) ranges_.push_back({bounds, array, name, 0});
}

void Memory::check_disjoint() {
    std::stable_sort(ranges_.begin(), ranges_.end(),
                     [](const Range& a, const Range& b) { return a.bounds.low < b.bounds.low; });
    std::uintptr_t highest = 0;
    for (std::size_t k = 0; k < ranges_.size(); ++k) {
        const Range& range = ranges_[k];
        for (std::size_t j = k; j-- > 0 && ranges_[j].highest > range.bounds.low;) {
            const Range& other = ranges_[j];
            if (other.bounds.high <= range.bounds.low || !share_bytes(other.array, range.array))
                continue;
            const bool parameters = !*range.name.role && !*other.name.role;
            if (parameters && same_view(View(other.array), View(range.array)))
                throw py::value_error(range.name + " is the same array as " + other.name.str() +
                                      ": pass a shared array once, with the sum of its gradients");
            throw py::value_error(
                range.name + " shares memory with " + other.name.str() +
                (parameters ? ": pass shared memory once, with the sum of its gradients (for tied "
                              "weights w and w.T: w, with the gradients g + h.T)"
                            : ""));
        }
        highest = ranges_[k].highest = std::max(highest, range.bounds.high);
    }
}

Bounds Memory::check_apart(py::handle array, const Bounds& bounds, const Name& name) const {
    const auto after = std::lower_bound(
        ranges_.begin(), ranges_.end(), bounds.high,
        [](const Range& range, std::uintptr_t high) { return range.bounds.low < high; });
    bool apart = true;
    for (auto at = after; at != ranges_.begin() && (--at)->highest > bounds.low;) {
        if (at->bounds.high <= bounds.low) continue;
        apart = false;
        if (share_bytes(at->array, array))
            throw py::value_error(name + " shares memory with " + at->name.str());
    }
    if (!apart) return {0, 0};
    return {after == ranges_.begin() ? 0 : std::prev(after)->highest,
            after == ranges_.end() ? UINTPTR_MAX : after->bounds.low};
}

}  // namespace instep::bindings
