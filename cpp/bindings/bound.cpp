#include "bindings/bound.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "engine/dispatch.h"

namespace instep::bindings {
namespace {

bool is_number(py::handle object) {
    static const py::handle float32 =
        py::object(py::module_::import("numpy").attr("float32")).release();
    return PyFloat_Check(object.ptr()) || py::isinstance(object, float32);
}

/// Marks a step under way, for as long as it lives.
class Busy {
public:
    explicit Busy(std::atomic<bool>& flag) : flag_(flag) {
        if (flag_.exchange(true))
            throw std::runtime_error("this optimizer is in the middle of a step");
    }
    ~Busy() { flag_ = false; }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

private:
    std::atomic<bool>& flag_;
};

/// Calls a function that reads these arrays, without Python's lock where that pays.
template <class Function>
auto run(Function function, std::size_t elements, const std::vector<py::handle>& in_use) {
    if (elements < elements_worth_releasing) return function();
    std::vector<py::object> kept;  // another thread may drop its references
    kept.reserve(in_use.size());
    for (const py::handle each : in_use) kept.push_back(py::reinterpret_borrow<py::object>(each));
    const py::gil_scoped_release unlocked;
    return function();
}

/// What is to be written where once nothing can fail any more.
struct Change {
    py::object to, from;
};

/// Pairs of arrays alike.
std::vector<Change> changes_from(const py::object& pairs) {
    std::vector<Change> changes;
    for (const py::handle pair : pairs) {
        const auto [to, from] = pair.cast<std::pair<py::object, py::object>>();
        if (!is_contiguous(to, true) || !is_contiguous(from, false) ||
            View(to).dtype() != View(from).dtype() || !View(to).same_shape(View(from)))
            throw std::runtime_error("state: expected contiguous arrays alike, got a " +
                                     description(from) + " for a " + description(to));
        changes.push_back({to, from});
    }
    return changes;
}

}  // namespace

const RuleKernels& rule_named(const std::string& name) {
    const RuleKernels* const rule = find_rule(name);
    if (!rule) throw py::value_error("there is no rule named '" + name + "'");
    return *rule;
}

BoundParameter::BoundParameter(py::object param, std::string path, const py::sequence& slots,
                               const py::sequence& scalars, py::object average,
                               py::object accumulator, const RuleKernels& rule)
    : param_((check_parameter(param, Name(path)), std::move(param))),
      average_(std::move(average)),
      accumulator_(std::move(accumulator)),
      path_(std::move(path)),
      order_(View(param_)),
      as_bound_(View(param_)) {
    const View view(param_);
    for (int s = 0; s < rule.slot_count; ++s) {
        const py::object slot = slots[static_cast<std::size_t>(s)];
        slot_names_.push_back(rule.slots[s].name);
        if (!slot.is_none())
            check_state(slot, view, name(rule.slots[s].name));
        else if (!rule.slots[s].optional)
            throw py::type_error(name(rule.slots[s].name) + ": expected an array, got None");
        slots_.push_back(slot);
    }
    for (int s = 0; s < rule.scalar_count; ++s) {
        const py::object scalar = scalars[static_cast<std::size_t>(s)];
        scalar_names_.push_back(rule.scalars[s]);
        check_scalar(scalar, name(rule.scalars[s]));
        scalars_.push_back(scalar);
    }
    if (!average_.is_none()) check_state(average_, view, name("average"));
    if (!accumulator_.is_none()) check_state(accumulator_, view, name("accumulator"));
}

Name BoundParameter::name(const char* role) const {
    return Name(role, " of ", path_);
}

Array BoundParameter::array() {
    stream_strides_.clear();
    stream_strides_.reserve(stream_count);
    Array array;
    Layout& layout = array.layout;
    const auto add = [&](int index, const py::object& object) {
        if (!object.is_none())
            layout.set(index, order_.stream(View(object), stream_strides_.emplace_back()));
    };
    layout.shape = order_.shape;
    layout.size = layout.block.count = View(param_).size();
    layout.dtype = View(param_).dtype();
    add(param_stream, param_);
    add(average_stream, average_);
    add(accumulated_stream, accumulator_);
    for (std::size_t s = 0; s < slots_.size(); ++s)
        add(first_slot + static_cast<int>(s), slots_[s]);
    for (std::size_t s = 0; s < scalars_.size(); ++s)
        array.scalars[s] = reinterpret_cast<double*>(View(scalars_[s]).data());
    return array;
}

void BoundParameter::add_to(Memory& memory) const {
    memory.add(param_, Name(path_));
    for (std::size_t s = 0; s < slots_.size(); ++s)
        if (!slots_[s].is_none()) memory.add(slots_[s], name(slot_names_[s]));
    for (std::size_t s = 0; s < scalars_.size(); ++s)
        memory.add(scalars_[s], name(scalar_names_[s]));
    if (!average_.is_none()) memory.add(average_, name("average"));
    if (!accumulator_.is_none()) memory.add(accumulator_, name("accumulator"));
}

void BoundParameter::refuse_changes() const {
    if (!View(param_).has_flag(py::detail::npy_api::NPY_ARRAY_WRITEABLE_))
        throw py::value_error(path_ +
                              ": expected an array to update in place, got one that was "
                              "made read-only since it was bound");
    throw py::value_error(path_ +
                          ": expected the array as it was bound, got one that was "
                          "resized, reshaped or moved since; bind again with build");
}

Stream BoundParameter::checked_gradient(py::handle object, const Memory& memory) {
    if (object.is_none()) return {};
    if (View(param_).ndim() == 0 && is_number(object)) {
        number_ = py::cast<double>(object);
        return {reinterpret_cast<char*>(&number_), Dtype::float64, nullptr, false};
    }
    const Name name("gradient", " for ", path_);
    check_gradient(object, View(param_), name);
    const View view(object);
    const Bounds bounds = view.bounds();
    if (bounds.low < free_.low || bounds.high > free_.high)
        free_ = memory.check_apart(object, bounds, name);
    return order_.stream(view, gradient_strides_);
}

Bound::Bound(const std::string& rule, const Tree& tree, const py::list& slots,
             const py::list& scalars, const py::list& averages, const py::list& accumulators)
    : tree_(tree), optimizer_(rule_named(rule), {}) {
    parameters_.reserve(tree_.leaves.size());
    for (std::size_t k = 0; k < tree_.leaves.size(); ++k) {
        parameters_.emplace_back(tree_.leaves[k], tree_.paths[k], slots[k], scalars[k], averages[k],
                                 accumulators[k], optimizer_.rule());
        parameters_[k].add_to(memory_);
        optimizer_.arrays.push_back(parameters_[k].array());
        optimizer_.clocks.emplace_back();
        elements_ += optimizer_.arrays[k].layout.size;
    }
    memory_.check_disjoint();
    streams_.resize(parameters_.size());
    const RuleKernels& known = optimizer_.rule();
    for (int k = 0; k < known.hyperparameter_count; ++k)
        if (std::string(known.hyperparameters[k]) == "next_learning_rate") next_rate_ = k;
}

void Bound::check_idle() const {
    if (busy_) throw std::runtime_error("this optimizer is in the middle of a step");
}

void Bound::set_groups(const py::list& groups, const std::vector<std::size_t>& of_leaves) {
    std::vector<py::object> schedules;
    std::vector<Group> converted;
    for (const py::handle each : groups) {
        const auto [rate, l2, weight_decay, clipnorm, clipvalue, maximize, own] =
            each.cast<std::tuple<py::object, double, double, std::optional<double>,
                                 std::optional<double>, bool, std::vector<double>>>();
        Group group;
        const bool is_schedule = PyCallable_Check(rate.ptr()) != 0;
        schedules.push_back(is_schedule ? rate : py::object());
        if (!is_schedule) group.learning_rate = rate.cast<double>();
        group.l2 = l2;
        group.weight_decay = weight_decay;
        group.clipnorm = clipnorm.value_or(no_clipping);
        group.clipvalue = clipvalue.value_or(no_clipping);
        group.maximize = maximize;
        std::copy(own.begin(), own.end(), group.own.begin());
        converted.push_back(group);
    }
    check_idle();
    wants_next_.assign(converted.size(), false);
    if (next_rate_ >= 0)
        for (std::size_t k = 0; k < converted.size(); ++k)
            wants_next_[k] = converted[k].own[static_cast<std::size_t>(next_rate_)] == ask_schedule;
    schedules_ = std::move(schedules);
    optimizer_.groups = std::move(converted);
    for (std::size_t k = 0; k < of_leaves.size(); ++k) optimizer_.arrays[k].group = of_leaves[k];
    optimizer_.changed();
}

int Bound::traverse(visitproc visit, void* arg) const {
    for (const py::object& schedule : schedules_) Py_VISIT(schedule.ptr());
    Py_VISIT(directions_.ptr());
    return 0;
}

void Bound::clear() {
    schedules_.clear();
    directions_ = py::object();
}

void Bound::set_copies(const py::list& pairs) {
    check_idle();
    copies_ = pairs;
}

void Bound::set_directions(py::object function) {
    check_idle();
    directions_ = std::move(function);
}

void Bound::set_options(double loss_scale_factor, std::optional<double> global_clipnorm,
                        bool skip_nonfinite, std::int64_t accumulation_steps, double ema_momentum,
                        std::int64_t ema_overwrite_frequency, bool global_clock, bool by_call) {
    check_idle();
    optimizer_.options = {loss_scale_factor,  global_clipnorm, skip_nonfinite,
                          accumulation_steps, ema_momentum,    ema_overwrite_frequency,
                          global_clock,       by_call};
    schedules_count_calls_ = by_call;
    optimizer_.changed();
}

std::int64_t Bound::schedule_index() const {
    const Optimizer& now = optimizer_;
    return schedules_count_calls_ ? now.iterations * now.options.accumulation_steps + now.window
                                  : now.iterations;
}

double Bound::answer(const py::object& schedule, std::int64_t index) const {
    const py::object given = schedule(index);
    double rate = PyFloat_AsDouble(given.ptr());
    if (rate == -1 && PyErr_Occurred()) {
        const bool is_too_large = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
        if (!is_too_large && !PyErr_ExceptionMatches(PyExc_TypeError))
            throw py::error_already_set();
        PyErr_Clear();
        if (!is_too_large)
            throw py::type_error("learning_rate: expected the schedule to return a float, got " +
                                 std::string(py::repr(given)));
        rate = HUGE_VAL;
    }
    if (!(rate >= 0) || std::isinf(rate))
        throw py::value_error(
            "learning_rate: expected the schedule to return a finite number >= 0, got " +
            std::string(py::repr(given)));
    return rate;
}

void Bound::ask_schedules() {
    for (std::size_t k = 0; k < schedules_.size(); ++k) {
        if (!schedules_[k]) continue;
        Group& group = optimizer_.groups[k];
        group.learning_rate = answer(schedules_[k], schedule_index());
        if (wants_next_[k])
            group.own[static_cast<std::size_t>(next_rate_)] =
                answer(schedules_[k], schedule_index() + 1);
    }
}

void Bound::gather_gradients(py::handle gradients) {
    tree_.check_unchanged();
    tree_.match(gradients, found_);
    for (std::size_t k = 0; k < parameters_.size(); ++k) {
        parameters_[k].check_unchanged();
        streams_[k] = parameters_[k].gradient(found_[k], memory_);
    }
}

void Bound::step(py::handle gradients) {
    const Busy busy(busy_);
    if (optimizer_.updates()) ask_schedules();
    gather_gradients(gradients);
    if (optimizer_.iterations == 0) copy_parameters();
    optimizer_.prepare(streams_);
    if (optimizer_.has_two_parts()) return step_in_two_parts();
    run([this] { optimizer_.run(); }, elements_, found_);
}

/// What a slot copies may have changed since it was bound: weights that were loaded, say.
void Bound::copy_parameters() {
    for (const py::handle pair : copies_) {
        const auto [slot, param] = pair.cast<std::pair<py::object, py::object>>();
        slot[py::ellipsis()] = param;
    }
}

void Bound::step_in_two_parts() {
    if (!run([this] { return optimizer_.hand_out(); }, elements_, found_)) return;
    std::vector<double> rates;
    for (const Group& group : optimizer_.groups) rates.push_back(group.learning_rate);
    const std::vector<Change> changes = changes_from(directions_(optimizer_.stepping(), rates));
    optimizer_.prepare_to_take();
    run([this] { optimizer_.run(); }, elements_, {});
    for (const Change& change : changes) {
        const View to(change.to);
        std::memcpy(to.data(), View(change.from).data(), to.size() * itemsize(to.dtype()));
    }
}

py::tuple Bound::counters() const {
    py::list steps, in_window;
    for (const Clock& clock : optimizer_.clocks) {
        steps.append(clock.steps);
        in_window.append(clock.in_window);
    }
    return py::make_tuple(optimizer_.iterations, optimizer_.skipped_steps, optimizer_.window,
                          optimizer_.grad_norm, steps, in_window);
}

void Bound::set_counters(std::int64_t iterations, std::int64_t skipped_steps, std::int64_t window,
                         std::optional<double> grad_norm, const std::vector<std::int64_t>& steps,
                         const std::vector<bool>& in_window) {
    check_idle();
    optimizer_.iterations = iterations;
    optimizer_.skipped_steps = skipped_steps;
    optimizer_.window = window;
    optimizer_.grad_norm = grad_norm;
    for (std::size_t k = 0; k < optimizer_.clocks.size(); ++k)
        optimizer_.clocks[k] = {steps[k], in_window[k]};
    optimizer_.changed();
}

void update_arrays(const RuleKernels& rule, const py::object& param, const py::object& grad,
                   const py::tuple& slots, const py::tuple& scalars, std::int64_t step,
                   double learning_rate, const std::array<double, max_hyperparameters>& own) {
    if (grad.is_none()) throw py::type_error("grad: expected a NumPy array, got None");
    BoundParameter parameter(param, "param", slots, scalars, py::none(), py::none(), rule);
    Memory memory;
    parameter.add_to(memory);
    memory.check_disjoint();
    const std::vector<Stream> gradients{parameter.gradient(grad, memory)};
    Optimizer optimizer(rule, {parameter.array()});
    optimizer.clocks[0].steps = step - 1;
    Group& group = optimizer.groups.emplace_back();
    group.learning_rate = learning_rate;
    group.own = own;
    optimizer.prepare(gradients);
    run([&] { optimizer.run(); }, optimizer.arrays[0].layout.size, {param, grad});
}

}  // namespace instep::bindings
