#include "engine/optimizer.h"

#include <utility>

#include "engine/dispatch.h"

namespace instep {
Optimizer::Optimizer(const RuleKernels& rule, std::vector<Array> bound)
    : arrays(std::move(bound)), clocks(arrays.size()), rule_(rule) {}

void Optimizer::prepare(const std::vector<Stream>& gradients) {
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
}

void Optimizer::prepare_update(const std::vector<Stream>& gradients) {
    step_.wants_norm = options.global_clipnorm.has_value();
    step_.global_clipnorm = options.global_clipnorm.value_or(no_clipping);
    bool repeatable = true;
    const Array* previous = nullptr;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const Array& array = arrays[k];
        const Layout& layout = array.layout;
        const Clock& clock = clocks[k];
        const bool given = gradients[k].data != nullptr, has_gradient = given || clock.in_window;
        repeatable &= given && !clock.in_window && !Layout::needs_buffer(gradients[k]);
        if (!has_gradient && !layout.streams[average_stream].data) continue;
        const auto as_before = [&] {
            const Clock& before = clocks[static_cast<std::size_t>(previous - arrays.data())];
            return previous->group == array.group && previous->layout.dtype == layout.dtype &&
                   before.steps == clock.steps && before.in_window == clock.in_window &&
                   step_.works.back().raw_gradient == given;
        };
        if (!previous || !as_before()) add_plan(k, given);
        previous = &array;

        unsigned streams = all_streams;
        if (!has_gradient) streams = bit(param_stream) | bit(average_stream);
        if (!given || !clock.in_window) streams &= ~bit(accumulated_stream);
        step_.add(layout, param_stream, streams,
                  given || !has_gradient ? gradients[k] : layout.streams[accumulated_stream],
                  given);
        if (has_gradient) stepping_.push_back(k);
    }
    repeatable_ = repeatable;  // not before: memory may have run out half-way
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

void Optimizer::add_plan(std::size_t array, bool is_given) {
    const Layout& layout = arrays[array].layout;
    Plan& plan = step_.plans.emplace_back();
    plan.array = array;
    plan.is_given = is_given;
    plan.has_gradient = is_given || clocks[array].in_window;
    plan.rule = plan.has_gradient ? &rule_ : &level().rest;
    unsigned slots = 0;
    for (int s = 0; s < plan.rule->slot_count; ++s)
        if (layout.streams[first_slot + s].data) slots |= bit(s);
    plan.update = plan.rule->update[static_cast<int>(layout.dtype)][slots];
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
    if (plan.has_gradient) {
        const double unscale = 1 / options.loss_scale_factor;
        const double mean = 1 / static_cast<double>(options.accumulation_steps);
        if (plan.is_given && clock.in_window) around.unscale = unscale;
        around.scale = (clock.in_window ? 1 : unscale) * mean * (group.maximize ? -1 : 1);
        around.clipvalue = group.clipvalue;
        around.l2 = group.l2;
        around.decay = group.learning_rate * group.weight_decay;
        plan.clipnorm = group.clipnorm;
    }
    instep::prepare(plan, array.layout.dtype, group.learning_rate, clock.steps + 1,
                    group.own.data());
}

void Optimizer::run() noexcept {
    step_.run();
    if (step_.skipped) {
        ++skipped_steps;
        return;
    }
    if (!updates()) {
        for (const std::size_t k : stepping_) clocks[k].in_window = true;
        ++window;
        return;
    }
    for (const std::size_t k : stepping_) {
        ++clocks[k].steps;
        clocks[k].in_window = false;
    }
    window = 0;
    ++iterations;
    if (step_.wants_norm)
        grad_norm = step_.grad_norm;
    else
        grad_norm.reset();
}

}  // namespace instep
