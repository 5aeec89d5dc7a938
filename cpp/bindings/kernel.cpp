#include "bindings/kernel.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "bindings/bound.h"
#include "bindings/formula.h"
#include "bindings/unlocked.h"
#include "engine/step.h"

namespace instep::bindings {
namespace {

/// What stands for an argument that is left out.
bool is_left_out(PyObject* object) {
    return object == Py_Ellipsis;
}

/// Whether the object cannot change.
bool is_constant(PyObject* object) {
    return PyFloat_CheckExact(object) || PyLong_CheckExact(object) || PyBool_Check(object) ||
           PyUnicode_CheckExact(object) || object == Py_None || is_left_out(object);
}

py::tuple tuple_of(PyObject* const* objects, std::size_t count) {
    py::tuple result(count);
    for (std::size_t k = 0; k < count; ++k) result[k] = py::handle(objects[k]);
    return result;
}

/// What hyperparameters come to, from what `check` returns.
Group group_from(const py::tuple& told, const RuleInfo& rule) {
    const py::dict values = told[0];
    Group group;
    group.options = options_from<GroupOptions>(values, told[1]);
    group.learning_rate =
        entry(values, "learning_rate").cast<double>() * group.options.learning_rate_factor;
    group.numbers = numbers_from(values, told[2], rule);
    return group;
}

/// The arrays as a block for the kernel, where there is nothing about them that needs a closer
/// look: all of one shape, contiguous, writable but for the gradient, of one dtype but for it, and
/// apart. `source` is null, or what the parameter is read from, and need not be writable.
bool make_block(PyObject* param, PyObject* source, PyObject* grad, PyObject* const* slots,
                std::size_t slot_count, Block& block) {
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
    if (source) {
        if (!is_simple(source, false)) return false;
        const View read(source);
        if (!read.same_dtype(first) || !add(param_stream, read, item)) return false;
        block.data[param_stream] = first.data();
    }
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

Kernel::Kernel(py::object rule, const py::list& arguments, py::object check, py::object check_step)
    : rule_object_(std::move(rule)),
      rule_(rule_of(rule_object_)),
      slots_(static_cast<std::size_t>(rule_.info.slot_count)),
      scalars_(static_cast<std::size_t>(rule_.info.scalar_count)),
      check_(std::move(check)),
      check_step_(std::move(check_step)) {
    const char* const* const own = rule_.info.hyperparameters;
    const std::ptrdiff_t count = rule_.info.hyperparameter_count;
    for (const py::handle each : arguments) {
        const auto [name, limits, is_switch] =
            each.cast<std::tuple<py::object, py::object, bool>>();
        const auto text = name.cast<std::string>();
        const std::ptrdiff_t at = std::find(own, own + count, text) - own;
        arguments_.push_back({name, Limits(limits), is_switch,
                              at < count ? static_cast<int>(at) : -1,
                              text == "l2"             ? &GroupOptions::l2
                              : text == "weight_decay" ? &GroupOptions::weight_decay
                                                       : nullptr});
    }
}

bool Kernel::find_meaning(PyObject* const* given, Group& meaning) const {
    meaning = checked_.meaning;
    for (std::size_t k = 0; k < arguments_.size(); ++k) {
        PyObject* const before = checked_.given[k].ptr();
        if (given[k] == before) continue;
        const Argument& argument = arguments_[k];
        if (checked_.is_tied[k]) return false;
        if (is_left_out(before) ? argument.is_switch : !is_plain_number(before)) return false;
        const std::optional<double> number = argument.limits.number(given[k]);
        if (!number) return false;
        if (argument.is_switch && (PyFloat_AsDouble(before) == 0) != (*number == 0)) return false;
        if (k == 0) meaning.learning_rate = *number;
        if (checked_.is_option[k]) meaning.options.*argument.option = *number;
        if (checked_.is_number[k])
            meaning.numbers[static_cast<std::size_t>(argument.number)] = *number;
    }
    return true;
}

Group Kernel::check_numbers(PyObject* const* given, unsigned in_use) {
    Group meaning;
    if (const std::unique_lock locked(cache_, std::try_to_lock);
        locked && in_use == checked_.in_use && !checked_.given.empty() &&
        find_meaning(given, meaning))
        return meaning;
    py::tuple used(slots_);
    for (std::size_t s = 0; s < slots_; ++s) used[s] = py::bool_(in_use >> s & 1);
    const py::tuple told = call(check_, tuple_of(given, arguments_.size()), used);
    const py::dict in_place_of_options = told[1], in_place_of_numbers = told[2];
    meaning = group_from(told, rule_.info);
    Checked checked{{}, in_use, meaning, {}, {}, {}};
    for (std::size_t k = 0; k < arguments_.size(); ++k) {
        const Argument& each = arguments_[k];
        checked.given.push_back(py::reinterpret_borrow<py::object>(given[k]));
        checked.is_tied.push_back(told[3].contains(each.name));
        checked.is_option.push_back(each.option && !in_place_of_options.contains(each.name));
        checked.is_number.push_back(each.number >= 0 && !in_place_of_numbers.contains(each.name));
    }
    if (!std::all_of(given, given + arguments_.size(), is_constant)) checked.given.clear();
    if (const std::unique_lock locked(cache_, std::try_to_lock); locked)
        std::swap(checked_, checked);
    return meaning;
}

std::int64_t Kernel::checked_step(PyObject* step, PyObject* const* given) const {
    if (PyLong_CheckExact(step)) {
        int overflows;
        const long long count = PyLong_AsLongLongAndOverflow(step, &overflows);
        if (!overflows && 1 <= count && count <= most_steps) return count;
    }
    return call(check_step_, py::handle(step), tuple_of(given, arguments_.size()))
        .cast<std::int64_t>();
}

void Kernel::run(PyObject* const* arguments, std::size_t count) {
    const std::size_t arrays = 2 + slots_ + scalars_, expected = arrays + arguments_.size() + 5;
    if (count != expected)
        throw py::type_error("expected " + std::to_string(expected) + " arguments, got " +
                             std::to_string(count));
    if (!is_left_out(arguments[arrays]))
        throw py::type_error(std::string(rule_.info.name) + ": expected all but the " +
                             std::to_string(arrays) + " arrays by name, got more by position");
    PyObject *const param = arguments[0], *const grad = arguments[1];
    PyObject* const* const slots = arguments + 2;
    PyObject* const* const scalars = slots + slots_;
    PyObject* const* const given = arguments + arrays + 2;
    PyObject* const* const rest = given + arguments_.size();
    PyObject *const out = rest[0], *const remainder = rest[1], *const master = rest[2];
    unsigned in_use = 0;
    for (std::size_t s = 0; s < slots_; ++s) in_use |= unsigned(slots[s] != Py_None) << s;
    const Group now = check_numbers(given, in_use);
    const std::int64_t step = checked_step(given[-1], given);
    PyObject* const source = out == Py_None || out == param ? nullptr : param;
    PyObject* const to = source ? out : param;

    Block block;
    const bool is_simple = remainder == Py_None && master == Py_None && !scalars_ &&
                           !rule_.info.sum_count &&
                           make_block(to, source, grad, slots, slots_, block);
    const Precision precision = is_simple ? precision_of(View(to).format()) : Precision::float32;
    if (!is_simple || !rule_.in(precision).update[in_use]) {
        py::dict state;
        for (std::size_t s = 0; s < slots_; ++s)
            state[rule_.info.slots[s].name] = py::handle(slots[s]);
        for (std::size_t s = 0; s < scalars_; ++s)
            state[rule_.info.scalars[s]] = py::handle(scalars[s]);
        if (remainder != Py_None) state["remainder"] = py::handle(remainder);
        if (master != Py_None) state["master"] = py::handle(master);
        return update_arrays(rule_, py::reinterpret_borrow<py::object>(param),
                             py::reinterpret_borrow<py::object>(grad),
                             py::reinterpret_borrow<py::object>(out), state, py::dict(), step, now);
    }
    Plan plan;
    plan.choose(rule_, precision, in_use);
    plan.around.group = now.options;
    plan.around.decay = now.decay();
    plan.prepare(precision, {now.learning_rate, step, step == 1, step == 1}, now.numbers.data());
    const void* const from = source ? View(source).data() : nullptr;
    work(block.count, [&] { update_array(plan.update, block, precision, from); });
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

void update(const py::object& rule, const py::object& param, const py::object& grad,
            const py::object& out, const py::dict& state, const py::dict& parts, std::int64_t step,
            const py::tuple& told) {
    const Rule& its_rule = rule_of(rule);
    update_arrays(its_rule, param, grad, out, state, parts, step, group_from(told, its_rule.info));
}

}  // namespace instep::bindings
