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

Kernel::Kernel(const std::string& rule, const py::list& arguments, py::object check,
               py::object check_step)
    : rule_(rule_named(rule)),
      slots_(static_cast<std::size_t>(rule_.info.slot_count)),
      scalars_(static_cast<std::size_t>(rule_.info.scalar_count)),
      check_(std::move(check)),
      check_step_(std::move(check_step)) {
    for (const py::handle each : arguments) {
        const auto [name, limits, is_switch] =
            each.cast<std::tuple<py::object, py::object, bool>>();
        numbers_.push_back({name, name.cast<std::string>(), Limits(limits), is_switch});
    }
}

std::optional<Kernel::Numbers> Kernel::meaning_of(PyObject* const* numbers) const {
    Numbers meaning = meaning_;
    for (std::size_t k = 0; k < numbers_.size(); ++k) {
        const py::object& before = checked_[k];
        if (numbers[k] == before.ptr()) continue;
        if (tied_[k] || !is_plain_number(before)) return std::nullopt;
        const Argument& argument = numbers_[k];
        const std::optional<double> number = argument.limits.number(numbers[k]);
        if (!number) return std::nullopt;
        if (argument.is_switch && (PyFloat_AsDouble(before.ptr()) == 0) != (*number == 0))
            return std::nullopt;
        if (k == 0)
            meaning.learning_rate = *number;
        else
            set_number_of(rule_.info, meaning.own, argument.text, *number);
    }
    return meaning;
}

Kernel::Numbers Kernel::check_numbers(PyObject* const* numbers, unsigned in_use) {
    if (const std::unique_lock locked(cache_, std::try_to_lock);
        locked && in_use == checked_in_use_ && !checked_.empty())
        if (const std::optional<Numbers> meaning = meaning_of(numbers)) return *meaning;
    py::tuple used(slots_);
    for (std::size_t s = 0; s < slots_; ++s) used[s] = py::bool_(in_use >> s & 1);
    const py::tuple checked = call(check_, tuple_of(numbers, numbers_.size()), used);
    const py::dict named = checked[0];
    std::vector<py::object> kept;
    std::vector<bool> tied;
    for (std::size_t k = 0; k < numbers_.size(); ++k) {
        kept.push_back(py::reinterpret_borrow<py::object>(numbers[k]));
        tied.push_back(py::set(checked[1]).contains(numbers_[k].name));
    }
    if (!std::all_of(numbers, numbers + numbers_.size(), is_constant)) kept.clear();
    Numbers meaning;
    meaning.learning_rate = entry(named, "learning_rate").cast<double>();
    meaning.own = numbers_from(named, py::dict(), rule_.info);
    if (const std::unique_lock locked(cache_, std::try_to_lock); locked) {
        checked_.swap(kept);
        tied_.swap(tied);
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
    return call(check_step_, py::handle(step), tuple_of(numbers, numbers_.size()))
        .cast<std::int64_t>();
}

void Kernel::run(PyObject* const* arguments, std::size_t count) {
    const std::size_t expected = 3 + slots_ + scalars_ + numbers_.size();
    if (count != expected)
        throw py::type_error("expected " + std::to_string(expected) + " arguments, got " +
                             std::to_string(count));
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
