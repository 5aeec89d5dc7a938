#include "engine/optimizer.h"

#include <utility>

#include "engine/dispatch.h"

namespace instep {
namespace {

/// Adds a plan to the step that updates arrays of the dtype with the slots in use.
Plan& add_plan_of(Step& step, const RuleKernels& rule, Dtype dtype, unsigned slots) {
    Plan& plan = step.plans.emplace_back();
    plan.update = rule.update[static_cast<int>(dtype)][slots];
    return plan;
}

}  // namespace

Optimizer::Optimizer(const RuleKernels& rule, std::vector<Array> bound)
    : arrays(std::move(bound)), rule_(rule) {}

void Optimizer::prepare(const std::vector<Stream>& gradients) {
    step_.clear();
    stepping_.clear();
    if (updates())
        prepare_update(gradients);
    else
        prepare_accumulation(gradients);
    step_.skip_nonfinite = options.skip_nonfinite;
    step_.reserve();
}

void Optimizer::prepare_accumulation(const std::vector<Stream>& gradients) {
    step_.wants_norm = false;
    const Array* previous = nullptr;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        if (!gradients[k].data) continue;
        const Array& array = arrays[k];
        const Dtype dtype = array.layout.dtype;
        if (!previous || previous->layout.dtype != dtype ||
            previous->in_window != array.in_window) {
            const double first = !array.in_window;
            Plan& plan = add_plan_of(step_, level().accumulate, dtype, 0);
            plan.around.scale = 1 / options.loss_scale_factor;
            instep::prepare(plan, level().accumulate, dtype, 0, 0, &first);
        }
        previous = &array;
        step_.add(array.layout, accumulated_stream, bit(param_stream) | bit(grad_stream),
                  gradients[k], true);
        stepping_.push_back(k);
    }
}

void Optimizer::prepare_update(const std::vector<Stream>& gradients) {
    step_.wants_norm = options.global_clipnorm.has_value();
    step_.global_clipnorm = options.global_clipnorm.value_or(no_clipping);
    const Array* previous = nullptr;
    bool previous_given = false;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const Array& array = arrays[k];
        const bool given = gradients[k].data != nullptr, has_gradient = given || array.in_window;
        if (!has_gradient && !array.layout.streams[average_stream].data) continue;
        if (!previous || previous->group != array.group || previous->steps != array.steps ||
            previous->layout.dtype != array.layout.dtype ||
            previous->in_window != array.in_window || previous_given != given)
            add_plan(array, given);
        previous = &array;
        previous_given = given;

        unsigned streams = all_streams;
        if (!has_gradient) streams = bit(param_stream) | bit(average_stream);
        if (!given || !array.in_window) streams &= ~bit(accumulated_stream);
        step_.add(array.layout, param_stream, streams,
                  given || !has_gradient ? gradients[k] : array.layout.streams[accumulated_stream],
                  given);
        if (has_gradient) stepping_.push_back(k);
    }
}

void Optimizer::add_plan(const Array& array, bool is_given) {
    const Group& group = groups[array.group];
    const Layout& layout = array.layout;
    const bool has_gradient = is_given || array.in_window;
    unsigned slots = 0;
    for (int s = 0; s < rule_.slot_count && has_gradient; ++s)
        if (layout.streams[first_slot + s].data) slots |= bit(s);
    const RuleKernels& rule = has_gradient ? rule_ : level().rest;
    Plan& plan = add_plan_of(step_, rule, layout.dtype, slots);

    Around& around = plan.around;
    around.ema_momentum = options.ema_momentum;
    around.first_average = iterations == 0;
    around.overwrite = layout.streams[average_stream].data && options.ema_overwrite_frequency > 0 &&
                       (iterations + 1) % options.ema_overwrite_frequency == 0;
    if (has_gradient) {
        const double unscale = 1 / options.loss_scale_factor;
        const double mean = 1 / static_cast<double>(options.accumulation_steps);
        if (is_given && array.in_window) around.unscale = unscale;
        around.scale = (array.in_window ? 1 : unscale) * mean * (group.maximize ? -1 : 1);
        around.clipvalue = group.clipvalue;
        around.l2 = group.l2;
        around.decay = group.learning_rate * group.weight_decay;
        plan.clipnorm = group.clipnorm;
    }
    instep::prepare(plan, rule, layout.dtype, group.learning_rate, array.steps + 1,
                    group.own.data());
}

void Optimizer::run() noexcept {
    step_.run();
    if (step_.skipped) {
        ++skipped_steps;
        return;
    }
    if (!updates()) {
        for (const std::size_t k : stepping_) arrays[k].in_window = true;
        ++window;
        return;
    }
    for (const std::size_t k : stepping_) {
        ++arrays[k].steps;
        arrays[k].in_window = false;
    }
    window = 0;
    ++iterations;
    if (step_.wants_norm)
        grad_norm = step_.grad_norm;
    else
        grad_norm.reset();
}

}  // namespace instep
