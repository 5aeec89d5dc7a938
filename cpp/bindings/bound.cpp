#include "bindings/bound.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "bindings/unlocked.h"
#include "engine/dispatch.h"

namespace instep::bindings {

const RuleKernels& rule_named(const std::string& name) {
    const RuleKernels* const rule = find_rule(name);
    if (!rule) throw py::value_error("there is no rule named '" + name + "'");
    return *rule;
}

BoundParameter::BoundParameter(py::object param, std::string path, const py::sequence& slots,
                               const py::sequence& scalars, py::object average,
                               py::object accumulator, Others others, const py::object& axes,
                               const RuleKernels& rule)
    : param_((check_parameter(param, Name(path)), std::move(param))),
      average_(std::move(average)),
      accumulator_(std::move(accumulator)),
      others_(std::move(others)),
      path_(std::move(path)),
      order_(axes.is_none() ? Order(View(param_))
                            : Order(View(param_), axes.cast<std::vector<int>>())),
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
    for (const auto& [its_name, other] : others_) check_array(other, name(its_name.c_str()));
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
    for (const auto& [its_name, other] : others_) memory.add(other, name(its_name.c_str()));
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

void BoundParameter::check_still(py::handle object, const Stream& stream) const {
    check_unchanged();
    if (!stream.data || stream.data == reinterpret_cast<const char*>(&number_)) return;
    const View view(object);
    if (view.data() != stream.data || !view.same_shape(View(param_)))
        throw py::value_error(name("gradient").str() +
                              ": expected an array that stays as it is during the step");
}

Bound::Bound(const std::string& rule, const Tree& tree, const py::list& slots,
             const py::list& scalars, const py::list& averages, const py::list& accumulators,
             const py::list& others, const py::object& copies, const py::object& counters,
             const py::object& orders)
    : tree_(tree), optimizer_(rule_named(rule), {}), copies_(copies) {
    parameters_.reserve(tree_.leaves.size());
    for (std::size_t k = 0; k < tree_.leaves.size(); ++k) {
        parameters_.emplace_back(tree_.leaves[k], tree_.paths[k], slots[k], scalars[k], averages[k],
                                 accumulators[k], others[k].cast<BoundParameter::Others>(),
                                 orders.is_none() ? py::none() : py::object(orders[py::int_(k)]),
                                 optimizer_.rule());
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
    if (!counters.is_none()) set_counters(counters_from(counters));
}

Configuration Bound::configuration(const py::tuple& told) const {
    Configuration result;
    const auto [groups, of_leaves, options, directions] =
        told.cast<std::tuple<py::list, std::vector<std::size_t>, py::tuple, py::object>>();
    for (const py::handle each : groups) {
        const auto [rate, l2, weight_decay, clipnorm, clipvalue, maximize, own] =
            each.cast<std::tuple<py::object, double, double, std::optional<double>,
                                 std::optional<double>, bool, std::vector<double>>>();
        Group group;
        const bool is_schedule = PyCallable_Check(rate.ptr()) != 0;
        result.schedules.push_back(is_schedule ? rate : py::object());
        if (!is_schedule) group.learning_rate = rate.cast<double>();
        group.l2 = l2;
        group.weight_decay = weight_decay;
        group.clipnorm = clipnorm.value_or(no_clipping);
        group.clipvalue = clipvalue.value_or(no_clipping);
        group.maximize = maximize;
        if (own.size() > group.own.size()) throw py::value_error("groups: too many numbers");
        std::copy(own.begin(), own.end(), group.own.begin());
        result.wants_next.push_back(
            next_rate_ >= 0 && group.own[static_cast<std::size_t>(next_rate_)] == ask_schedule);
        result.groups.push_back(group);
    }
    result.of_leaves = of_leaves;
    if (of_leaves.size() != parameters_.size() ||
        std::any_of(of_leaves.begin(), of_leaves.end(),
                    [&](std::size_t group) { return group >= result.groups.size(); }))
        throw py::value_error("of_leaves: expected a group for each parameter");
    const auto [loss_scale_factor, global_clipnorm, skip_nonfinite, accumulation_steps,
                ema_momentum, ema_overwrite_frequency, global_clock, by_call] =
        options.cast<std::tuple<double, std::optional<double>, bool, std::int64_t, double,
                                std::int64_t, bool, bool>>();
    result.options = {loss_scale_factor,  global_clipnorm, skip_nonfinite,
                      accumulation_steps, ema_momentum,    ema_overwrite_frequency,
                      global_clock,       by_call};
    result.schedules_count_calls = by_call;
    result.directions = directions;
    return result;
}

void Bound::configure(Configuration& told) noexcept {
    std::swap(told_, told);
    std::swap(optimizer_.groups, told_.groups);
    optimizer_.options = told_.options;
    for (std::size_t k = 0; k < told_.of_leaves.size(); ++k)
        optimizer_.arrays[k].group = told_.of_leaves[k];
    optimizer_.changed();
}

int Bound::traverse(visitproc visit, void* arg) const {
    for (const py::object& schedule : told_.schedules) Py_VISIT(schedule.ptr());
    Py_VISIT(told_.directions.ptr());
    for (const BoundParameter& parameter : parameters_) Py_VISIT(parameter.object().ptr());
    if (const int stop = copies_.traverse(visit, arg)) return stop;
    return tree_.traverse(visit, arg);
}

void Bound::clear() {
    Configuration nothing;
    std::swap(told_, nothing);
}

py::object Bound::schedule_index() const {
    const py::int_ updates(iterations());
    if (!told_.schedules_count_calls) return updates;
    return updates * py::int_(told_.options.accumulation_steps) +
           py::int_(look_at(optimizer_.window));
}

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

void Bound::ask_schedules() {
    if (!optimizer_.updates()) return;
    for (std::size_t k = 0; k < told_.schedules.size(); ++k) {
        if (!told_.schedules[k]) continue;
        Group& group = optimizer_.groups[k];
        group.learning_rate = ask(told_.schedules[k], schedule_index());
        if (told_.wants_next[k])
            group.own[static_cast<std::size_t>(next_rate_)] =
                ask(told_.schedules[k], schedule_index() + py::int_(1));
    }
}

void Bound::check_unchanged() const {
    tree_.check_unchanged();
    for (const BoundParameter& parameter : parameters_) parameter.check_unchanged();
}

bool Bound::is_apart(const py::object& array) const {
    if (!is_array(array)) throw py::type_error("is_apart: expected a NumPy array");
    try {
        static const std::string name = "array";
        memory_.check_apart(array, View(array).bounds(), Name(name));
    } catch (const py::value_error&) {
        return false;
    }
    return true;
}

void Bound::gather_gradients(py::handle gradients) {
    tree_.check_unchanged();
    tree_.match(gradients, found_);
    bool looked_closer = false;
    for (std::size_t k = 0; k < parameters_.size(); ++k) {
        parameters_[k].check_unchanged();
        streams_[k] = parameters_[k].gradient(found_[k], memory_, looked_closer);
    }
    if (!looked_closer) return;
    for (std::size_t k = 0; k < parameters_.size(); ++k)
        parameters_[k].check_still(found_[k], streams_[k]);
}

void Bound::step(py::handle gradients) {
    const struct Found {
        std::vector<py::object>& gradients;
        ~Found() { gradients.clear(); }
    } found{found_};
    gather_gradients(gradients);
    refresh();
    optimizer_.prepare(streams_);
    if (optimizer_.has_two_parts()) return step_in_two_parts();
    work(elements_, [this] { optimizer_.run(); });
}

void Bound::refresh() {
    if (iterations() > 0) return;
    for (const BoundParameter& parameter : parameters_)
        if (!parameter.is_unchanged()) return;  // the next step tells
    work(copies_.size(), [this] { copies_.write(); });
}

void Bound::step_in_two_parts() {
    if (!work(elements_, [this] { return optimizer_.hand_out(); })) return;
    std::vector<double> rates;
    for (const Group& group : optimizer_.groups) rates.push_back(group.learning_rate);
    if (!told_.directions) throw std::runtime_error("step: this optimizer is being given up");
    const Changes changes(call(told_.directions, optimizer_.stepping(), rates));
    check_unchanged();  // other threads, and handlers of signals, may have run
    optimizer_.prepare_to_take();
    work(elements_, [&] {
        optimizer_.run();
        changes.write();
    });
}

std::vector<std::vector<int>> Bound::orders() const {
    std::vector<std::vector<int>> result;
    for (const BoundParameter& parameter : parameters_) result.push_back(parameter.axes());
    return result;
}

Counters Bound::counters() const {
    Counters result{iterations(), skipped_steps(), look_at(optimizer_.window), grad_norm(), {}, {}};
    for (const Clock& clock : optimizer_.clocks) {
        result.steps.push_back(look_at(clock.steps));
        result.in_window.push_back(look_at(clock.in_window));
    }
    return result;
}

Counters Bound::counters_from(const py::object& told) const {
    Counters result{};
    std::tie(result.iterations, result.skipped_steps, result.window, result.grad_norm, result.steps,
             result.in_window) =
        told.cast<std::tuple<std::int64_t, std::int64_t, std::int64_t, std::optional<double>,
                             std::vector<std::int64_t>, std::vector<bool>>>();
    if (result.steps.size() != parameters_.size() || result.in_window.size() != parameters_.size())
        throw py::value_error("counters: expected those of " + std::to_string(parameters_.size()) +
                              " parameters");
    return result;
}

void Bound::set_counters(const Counters& counters) noexcept {
    optimizer_.iterations = counters.iterations;
    optimizer_.skipped_steps = counters.skipped_steps;
    optimizer_.window = counters.window;
    optimizer_.grad_norm = counters.grad_norm.value_or(-1);
    for (std::size_t k = 0; k < optimizer_.clocks.size(); ++k)
        optimizer_.clocks[k] = {counters.steps[k], counters.in_window[k]};
    optimizer_.changed();
}

std::optional<double> Bound::grad_norm() const {
    const double norm = look_at(optimizer_.grad_norm);
    return norm < 0 ? std::nullopt : std::optional(norm);
}

Changes::Changes(const py::object& pairs) {
    for (const py::handle pair : pairs) {
        auto [to, from] = pair.cast<std::pair<py::object, py::object>>();
        if (!is_usable(to, true) || !is_usable(from, false) ||
            View(to).dtype() != View(from).dtype() || !View(to).same_shape(View(from)))
            throw std::runtime_error("expected arrays alike, got a " + description(from) +
                                     " for a " + description(to));
        Change& change =
            changes_.emplace_back(Change{to, from, Order(View(to)), View(to).size(), {}, {}, {}});
        change.target = change.order.stream(View(to), change.strides[0]);
        change.source = change.order.stream(View(from), change.strides[1]);
        elements_ += change.size;
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
    for (const Change& change : changes_) {
        alignas(double) char buffer[tile_elements * sizeof(double)];
        for (std::size_t done = 0; done < change.size; done += tile_elements) {
            const std::size_t count = std::min(tile_elements, change.size - done);
            gather(change.order.shape, change.source, done, count, change.source.dtype, buffer);
            scatter(change.order.shape, change.target, done, count, buffer);
        }
    }
}

void update_arrays(const RuleKernels& rule, const py::object& param, const py::object& grad,
                   const py::tuple& slots, const py::tuple& scalars, std::int64_t step,
                   double learning_rate, const std::array<double, max_hyperparameters>& own) {
    if (grad.is_none()) throw py::type_error("grad: expected a NumPy array, got None");
    BoundParameter parameter(param, "param", slots, scalars, py::none(), py::none(), {}, py::none(),
                             rule);
    Memory memory;
    parameter.add_to(memory);
    memory.check_disjoint();
    bool looked_closer = false;
    const std::vector<Stream> gradients{parameter.gradient(grad, memory, looked_closer)};
    parameter.check_still(grad, gradients[0]);
    Optimizer optimizer(rule, {parameter.array()});
    optimizer.clocks[0].steps = step - 1;
    Group& group = optimizer.groups.emplace_back();
    group.learning_rate = learning_rate;
    group.own = own;
    optimizer.prepare(gradients);
    work(optimizer.arrays[0].layout.size, [&] { optimizer.run(); });
}

}  // namespace instep::bindings
