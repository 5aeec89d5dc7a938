#include "bindings/kernel.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "bindings/bound.h"
#include "bindings/unlocked.h"
#include "engine/step.h"

namespace instep::bindings {
namespace {

/// Whether the object cannot change.
bool is_constant(PyObject* object) {
    return PyFloat_CheckExact(object) || PyLong_CheckExact(object) || PyBool_Check(object);
}

py::tuple tuple_of(PyObject* const* objects, std::size_t count) {
    py::tuple result(count);
    for (std::size_t k = 0; k < count; ++k) result[k] = py::handle(objects[k]);
    return result;
}

/// The arrays as a block for the kernel, where there is nothing about them that needs a closer
/// look: all of one shape, contiguous, writable but for the gradient, of one dtype but for it, and
/// apart.
bool make_block(PyObject* param, PyObject* grad, PyObject* const* slots, std::size_t slot_count,
                Block& block) {
    struct Range {
        const char *begin, *end;
    } ranges[stream_count];
    std::size_t arrays = 0;
    if (!is_simple(param, true)) return false;
    const View first(param);
    block = {};
    block.count = first.size();
    const auto add = [&](int stream, const View& view, std::size_t item) {
        if (!view.same_shape(first)) return false;
        const Range range{view.data(), view.data() + block.count * item};
        for (std::size_t k = 0; k < arrays; ++k)
            if (range.begin < ranges[k].end && ranges[k].begin < range.end) return false;
        ranges[arrays++] = range;
        block.data[stream] = view.data();
        return true;
    };
    const std::size_t item = itemsize(first.format());
    if (!add(param_stream, first, item) || !is_simple(grad, false)) return false;
    const View given(grad);
    block.grad_format = given.format();
    if (!add(grad_stream, given, itemsize(block.grad_format))) return false;
    for (std::size_t s = 0; s < slot_count; ++s) {
        if (slots[s] == Py_None) continue;
        if (!is_simple(slots[s], true)) return false;
        const View slot(slots[s]);
        if (!slot.same_dtype(first) || !add(first_slot + static_cast<int>(s), slot, item))
            return false;
    }
    return true;
}

}  // namespace

Kernel::Kernel(const std::string& rule, std::size_t numbers, py::object check,
               py::object check_step)
    : rule_(rule_named(rule)),
      slots_(static_cast<std::size_t>(rule_.info.slot_count)),
      scalars_(static_cast<std::size_t>(rule_.info.scalar_count)),
      numbers_(numbers),
      check_(std::move(check)),
      check_step_(std::move(check_step)) {}

Kernel::Numbers Kernel::check_numbers(PyObject* const* numbers, unsigned in_use) {
    const auto same = [](PyObject* now, const py::object& then) { return now == then.ptr(); };
    if (const std::unique_lock locked(cache_, std::try_to_lock);
        locked && in_use == checked_in_use_ && !checked_.empty() &&
        std::equal(numbers, numbers + numbers_, checked_.begin(), same))
        return meaning_;
    py::tuple used(slots_);
    for (std::size_t s = 0; s < slots_; ++s) used[s] = py::bool_(in_use >> s & 1);
    const py::dict named = call(check_, tuple_of(numbers, numbers_), used);
    std::vector<py::object> kept;
    if (std::all_of(numbers, numbers + numbers_, is_constant))
        for (std::size_t k = 0; k < numbers_; ++k)
            kept.push_back(py::reinterpret_borrow<py::object>(numbers[k]));
    Numbers meaning;
    meaning.learning_rate = entry(named, "learning_rate").cast<double>();
    meaning.own = numbers_from(named, rule_.info);
    if (const std::unique_lock locked(cache_, std::try_to_lock); locked) {
        checked_.swap(kept);
        checked_in_use_ = in_use;
        meaning_ = meaning;
    }
    return meaning;
}

std::int64_t Kernel::checked_step(PyObject* step, PyObject* const* numbers) const {
    if (PyLong_CheckExact(step)) {
        int overflows;
        const long long count = PyLong_AsLongLongAndOverflow(step, &overflows);
        if (!overflows && 1 <= count && count <= most_steps) return count;
    }
    return call(check_step_, py::handle(step), tuple_of(numbers, numbers_)).cast<std::int64_t>();
}

void Kernel::run(PyObject* const* arguments, std::size_t count) {
    if (count != 3 + slots_ + scalars_ + numbers_)
        throw py::type_error("expected " + std::to_string(3 + slots_ + scalars_ + numbers_) +
                             " arguments, got " + std::to_string(count));
    PyObject *const param = arguments[0], *const grad = arguments[1];
    PyObject* const* const slots = arguments + 2;
    PyObject* const* const scalars = slots + slots_;
    PyObject* const* const numbers = scalars + scalars_ + 1;
    unsigned in_use = 0;
    for (std::size_t s = 0; s < slots_; ++s) in_use |= unsigned(slots[s] != Py_None) << s;
    const Numbers now = check_numbers(numbers, in_use);
    const std::int64_t step = checked_step(scalars[scalars_], numbers);

    Block block;
    const bool is_simple =
        !scalars_ && !rule_.info.sum_count && make_block(param, grad, slots, slots_, block);
    const Precision precision = is_simple ? precision_of(View(param).format()) : Precision::float32;
    if (!is_simple || !rule_.in(precision).update[in_use]) {
        py::dict state;
        for (std::size_t s = 0; s < slots_; ++s)
            state[rule_.info.slots[s].name] = py::handle(slots[s]);
        for (std::size_t s = 0; s < scalars_; ++s)
            state[rule_.info.scalars[s]] = py::handle(scalars[s]);
        return update_arrays(rule_, py::reinterpret_borrow<py::object>(param),
                             py::reinterpret_borrow<py::object>(grad), state, step,
                             now.learning_rate, now.own);
    }
    Plan plan;
    plan.choose(rule_, precision, in_use);
    plan.prepare(precision, now.learning_rate, step, now.own.data());
    work(block.count, [&] { update_array(plan.update, block, precision); });
}

int Kernel::traverse(visitproc visit, void* arg) const {
    Py_VISIT(check_.ptr());
    Py_VISIT(check_step_.ptr());
    return 0;
}

void Kernel::clear() {
    check_ = py::object();
    check_step_ = py::object();
}

}  // namespace instep::bindings
