#include "engine/optimizer.h"

#include <algorithm>
#include <utility>

namespace instep {
namespace {

void count(std::int64_t& counter) {
    change(counter, std::min(counter + 1, most_steps));
}

}  // namespace

Optimizer::Optimizer(const RuleKernels& rule, std::vector<Array> bound)
    : arrays(std::move(bound)), clocks(arrays.size()), rule_(rule) {}

void Optimizer::prepare(const std::vector<Stream>& gradients) {
    takes_ = false;
    if (!updates() || !repeat_update(gradients)) {
        repeatable_ = false;
        step_.clear();
        stepping_.clear();
        if (updates())
            prepare_update(gradients);
        else
            prepare_accumulation(gradients);
    }
    step_.skip_nonfinite = options.skip_nonfinite;
    step_.reserve();
}

void Optimizer::prepare_accumulation(const std::vector<Stream>& gradients) {
    step_.wants_norm = false;
    const Clock* previous = nullptr;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        if (!gradients[k].data) continue;
        const Layout& layout = arrays[k].layout;
        if (!previous || step_.works.back().dtype != layout.dtype ||
            previous->in_window != clocks[k].in_window) {
            const double first = !clocks[k].in_window;
            Plan& plan = step_.plans.emplace_back();
            plan.rule = &level().accumulate;
            plan.update = plan.rule->update[static_cast<int>(layout.dtype)][0];
            plan.around.scale = 1 / options.loss_scale_factor;
            instep::prepare(plan, layout.dtype, 0, 0, &first);
        }
        previous = &clocks[k];
        step_.add(layout, accumulated_stream, bit(param_stream), gradients[k], true);
        stepping_.push_back(k);
    }
    if (!options.averages_every_call) return;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const Layout& layout = arrays[k].layout;
        if (!layout.streams[average_stream].data) continue;
        add_plan(k, false, false);
        step_.add(layout, param_stream, bit(param_stream) | bit(average_stream), Stream(), false);
    }
}

void Optimizer::prepare_update(const std::vector<Stream>& gradients) {
    step_.wants_norm = options.global_clipnorm.has_value();
    step_.global_clipnorm = options.global_clipnorm.value_or(no_clipping);
    bool repeatable = true;
    const bool has_plans_of_their_own = rule_.scalar_count || rule_.sum_count;
    const Array* previous = nullptr;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const Array& array = arrays[k];
        const Layout& layout = array.layout;
        const Clock& clock = clocks[k];
        const bool given = gradients[k].data != nullptr, has_gradient = given || clock.in_window;
        repeatable &= given && !clock.in_window && !Layout::needs_buffer(gradients[k]);
        // Numbers that depend on nothing but the count of all updates go on.
        if (!has_gradient && options.global_clock && rule_.scalar_count && !rule_.sum_count)
            add_plan(k, true, true);
        if (!has_gradient && (has_two_parts() || !layout.streams[average_stream].data)) continue;
        const auto as_before = [&] {
            const Clock& before = clocks[static_cast<std::size_t>(previous - arrays.data())];
            return previous->group == array.group && previous->layout.dtype == layout.dtype &&
                   before.steps == clock.steps && before.in_window == clock.in_window &&
                   step_.works.back().raw_gradient == given;
        };
        if (!previous || has_plans_of_their_own || !as_before()) add_plan(k, given, has_gradient);
        previous = &array;

        unsigned streams = all_streams;
        if (!has_gradient) streams = bit(param_stream) | bit(average_stream);
        if (!given || !clock.in_window) streams &= ~bit(accumulated_stream);
        if (has_two_parts()) streams &= ~bit(average_stream);
        step_.add(layout, param_stream, streams,
                  given || !has_gradient ? gradients[k] : layout.streams[accumulated_stream],
                  given);
        if (has_gradient) stepping_.push_back(k);
    }
    repeatable_ = repeatable && !has_two_parts();  // not before: memory may have run out half-way
}

void Optimizer::prepare_to_take() {
    takes_ = true;
    step_.clear();
    std::size_t next = 0;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const Layout& layout = arrays[k].layout;
        const bool steps = next < stepping_.size() && stepping_[next] == k;
        next += steps;
        if (!steps && !layout.streams[average_stream].data) continue;
        add_plan(k, false, steps);
        const unsigned slot = steps ? bit(first_slot) : 0;
        step_.add(layout, param_stream, bit(param_stream) | bit(average_stream) | slot, Stream(),
                  false);
    }
    step_.skip_nonfinite = step_.wants_norm = false;
    step_.reserve();
}

bool Optimizer::repeat_update(const std::vector<Stream>& gradients) {
    if (!repeatable_) return false;
    for (std::size_t k = 0; k < gradients.size(); ++k) {
        const Stream& gradient = gradients[k];
        Work& work = step_.works[k];
        if (!gradient.data || !gradient.contiguous() || gradient.dtype != work.grad.dtype)
            return false;
        work.grad = gradient;
        work.block.data[grad_stream] = gradient.data;
    }
    for (Plan& plan : step_.plans) set_numbers(plan);
    return true;
}

void Optimizer::add_plan(std::size_t array, bool is_given, bool has_gradient) {
    const Layout& layout = arrays[array].layout;
    Plan& plan = step_.plans.emplace_back();
    plan.array = array;
    plan.is_given = is_given;
    plan.has_gradient = has_gradient;
    plan.rule = plan.has_gradient ? &rule_ : &level().rest;
    unsigned slots = 0;
    for (int s = 0; s < plan.rule->slot_count; ++s)
        if (layout.streams[first_slot + s].data) slots |= bit(s);
    plan.update = plan.rule->update[static_cast<int>(layout.dtype)][slots];
    plan.measure = plan.rule->measure[static_cast<int>(layout.dtype)][slots];
    set_numbers(plan);
}

void Optimizer::set_numbers(Plan& plan) const {
    const Array& array = arrays[plan.array];
    const Clock& clock = clocks[plan.array];
    const Group& group = groups[array.group];
    Around& around = plan.around;
    around.ema_momentum = options.ema_momentum;
    around.first_average = iterations == 0;
    around.overwrite = array.layout.streams[average_stream].data &&
                       options.ema_overwrite_frequency > 0 &&
                       (iterations + 1) % options.ema_overwrite_frequency == 0;
    if (has_two_parts() && !takes_) around.overwrite = false;
    if (takes_ && plan.has_gradient) {
        around.decay = group.learning_rate * group.weight_decay;
    } else if (plan.has_gradient) {
        const double unscale = 1 / options.loss_scale_factor;
        const double mean = 1 / static_cast<double>(options.accumulation_steps);
        if (plan.is_given && clock.in_window)
            around.unscale = factors(unscale, array.layout.dtype == Dtype::float32);
        around.scale = (clock.in_window ? 1 : unscale) * mean * (group.maximize ? -1 : 1);
        around.clipvalue = group.clipvalue;
        around.l2 = group.l2;
        around.decay = has_two_parts() ? 0 : group.learning_rate * group.weight_decay;
        plan.clipnorm = group.clipnorm;
    }
    for (int k = 0; k < plan.rule->scalar_count; ++k) plan.scalars[k] = *array.scalars[k];
    const double takes = takes_;
    instep::prepare(plan, array.layout.dtype, group.learning_rate,
                    (options.global_clock ? iterations : clock.steps) + 1,
                    plan.rule == &level().direction ? &takes : group.own.data());
}

/// Writes what the step has made of the numbers that the rule keeps for whole arrays.
void Optimizer::keep_scalars() noexcept {
    const auto keep = [](const Plan& plan, const Array& array) {
        for (int k = 0; k < plan.rule->scalar_count; ++k) *array.scalars[k] = plan.scalars[k];
    };
    for (const Plan& plan : step_.plans) {
        if (&rule_ != plan.rule) continue;
        if (!rule_.sums_over_all) {
            keep(plan, arrays[plan.array]);
            continue;
        }
        for (const Array& array : arrays) keep(plan, array);  // they belong to all together
        return;
    }
}

bool Optimizer::hand_out() noexcept {
    step_.run();
    if (step_.skipped) count(skipped_steps);
    if (step_.wants_norm) norm_handed_out_ = step_.grad_norm;
    return !step_.skipped;
}

void Optimizer::run() noexcept {
    step_.run();
    if (step_.skipped) return count(skipped_steps);
    if (!updates()) {
        for (const std::size_t k : stepping_) change(clocks[k].in_window, true);
        return count(window);
    }
    if (rule_.scalar_count) keep_scalars();
    for (const std::size_t k : stepping_) {
        count(clocks[k].steps);
        change(clocks[k].in_window, false);
    }
    change(window, std::int64_t{0});
    count(iterations);
    const double norm = takes_ ? norm_handed_out_ : step_.grad_norm;
    change(grad_norm, options.global_clipnorm ? norm : -1);
}

}  // namespace instep
