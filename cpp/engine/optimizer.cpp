#include "engine/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace instep {
namespace {

void count(std::int64_t& counter) {
    change(counter, std::min(counter + 1, most_steps));
}

}  // namespace

Optimizer::Optimizer(const Rule& rule, std::vector<Array> bound)
    : arrays(std::move(bound)), clocks(arrays.size()), watched(arrays.size()), rule_(rule) {}

double window_share(std::int64_t calls) {
    double share = 1;
    for (; calls > 1; calls -= calls / 2) share /= 2;
    return share;
}

void Optimizer::prepare(const std::vector<Stream>& gradients) {
    if (!updates() || !repeat_update(gradients)) {
        repeatable_ = false;
        step_.clear();
        stepping_.clear();
        parts_of_.clear();
        if (updates())
            prepare_update(gradients);
        else
            prepare_accumulation(gradients);
    }
    step_.skip_nonfinite = options.skip_nonfinite;
    step_.wants_norm = updates() && options.global_clipnorm != no_limit;
    step_.global_clipnorm = options.global_clipnorm;
    step_.watch = updates() ? static_cast<unsigned>(options.watch) : 0;
    step_.reserve();
}

void Optimizer::prepare_accumulation(const std::vector<Stream>& gradients) {
    const Clock* previous = nullptr;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        if (!gradients[k].data) continue;
        const Layout& layout = arrays[k].layout;
        if (!previous || step_.works.back().precision() != layout.precision ||
            previous->in_window != clocks[k].in_window) {
            const double first = !clocks[k].in_window;
            Plan& plan = step_.plans.emplace_back();
            plan.choose(internal(Internal::accumulate), layout.precision, 0);
            plan.around.scale =
                window_share(options.gradient_accumulation_steps) / options.loss_scale_factor;
            plan.prepare(layout.precision, {}, &first);
        }
        previous = &clocks[k];
        step_.add(layout, accumulated_stream, bit(param_stream), gradients[k], true);
        stepping_.push_back(k);
    }
    if (!counting.every_call) return;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const Layout& layout = arrays[k].layout;
        if (!layout.streams[average_stream].data) continue;
        add_plan(k, false, false);
        step_.add(layout, param_stream, bit(param_stream) | bit(average_stream), Stream(), false);
    }
}

void Optimizer::prepare_update(const std::vector<Stream>& gradients) {
    bool repeatable = !lends();
    const bool has_plans_of_their_own = rule_.info.scalar_count || rule_.info.sum_count;
    const Array* previous = nullptr;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const Array& array = arrays[k];
        const Layout& layout = array.layout;
        const Clock& clock = clocks[k];
        const bool given = gradients[k].data != nullptr, has_gradient = given || clock.in_window;
        repeatable &= given && !clock.in_window && gradients[k].contiguous();
        // Numbers that depend on nothing but the count of all updates go on.
        if (!has_gradient && counting.global && rule_.info.scalar_count && !rule_.info.sum_count)
            add_plan(k, true, true);
        if (!has_gradient && !layout.streams[average_stream].data) continue;
        const auto as_before = [&] {
            const Clock& before = clocks[static_cast<std::size_t>(previous - arrays.data())];
            return previous->group == array.group &&
                   previous->layout.precision == layout.precision &&
                   previous->layout.parts.empty() == layout.parts.empty() &&
                   before.steps == clock.steps && before.in_window == clock.in_window &&
                   before.begun == clock.begun && step_.works.back().raw_gradient == given;
        };
        if (!previous || has_plans_of_their_own || !as_before()) add_plan(k, given, has_gradient);
        previous = &array;

        unsigned streams = all_streams;
        if (!has_gradient) streams = bit(param_stream) | bit(average_stream);
        if (!given || !clock.in_window) streams &= ~bit(accumulated_stream);
        step_.add(layout, param_stream, streams,
                  given || !has_gradient ? gradients[k] : layout.streams[accumulated_stream],
                  given);
        set_noise(step_.works.back(), k);
        parts_of_.push_back(k);
        if (has_gradient) stepping_.push_back(k);
    }
    repeatable_ = repeatable;  // not before: memory may have run out half-way
}

bool Optimizer::repeat_update(const std::vector<Stream>& gradients) {
    if (!repeatable_) return false;
    for (std::size_t k = 0; k < gradients.size(); ++k) {
        const Stream& gradient = gradients[k];
        Work& work = step_.works[k];
        if (!gradient.data || !gradient.contiguous() || gradient.format != work.grad.format)
            return false;
        work.grad.data = gradient.data;
        work.block.data[grad_stream] = gradient.data;
        set_noise(work, k);
    }
    for (Plan& plan : step_.plans) set_numbers(plan);
    return true;
}

void Optimizer::set_noise(Work& work, std::size_t array) const {
    if (work.is_random) work.noise_key = Noise::key_of(options.seed, iterations, array);
}

void Optimizer::add_plan(std::size_t array, bool is_given, bool has_gradient) {
    const Layout& layout = arrays[array].layout;
    const Rule& rule = has_gradient ? rule_ : internal(Internal::rest);
    Plan& plan = step_.plans.emplace_back();
    plan.array = array;
    plan.is_given = is_given;
    plan.has_gradient = has_gradient;
    unsigned slots = 0;
    for (int s = 0; s < rule.info.slot_count; ++s)
        if (layout.streams[first_slot + s].data) slots |= bit(s);
    if (has_gradient && !layout.parts.empty()) slots |= bit(rule.info.divisible_slot) | in_parts;
    plan.choose(rule, layout.precision, slots);
    set_numbers(plan);
}

void Optimizer::set_numbers(Plan& plan) const {
    const Array& array = arrays[plan.array];
    const Precision precision = array.layout.precision;
    const Clock& clock = clocks[plan.array];
    const Group& group = groups[array.group];
    for (int k = 0; k < plan.rule->info.scalar_count; ++k) plan.scalars[k] = *array.scalars[k];
    Around& around = plan.around;
    const auto prepare = [&] {
        const std::int64_t before = counting.global ? iterations : clock.steps;
        const Moment moment{group.learning_rate, before + options.first_step, before == 0,
                            !clock.begun};
        plan.prepare(precision, moment, group.numbers.data());
    };
    if (plan.has_gradient) {
        const double unscale = 1 / options.loss_scale_factor;
        const std::int64_t together = is_flushing_ ? window : options.gradient_accumulation_steps;
        const double mean = 1 / static_cast<double>(together) * (group.options.maximize ? -1 : 1);
        around.scale = unscale * mean;
        if (clock.in_window) {
            const double share = window_share(options.gradient_accumulation_steps);
            if (plan.is_given)
                around.unscale = factors(share * unscale, precision == Precision::float32);
            around.scale = mean / share;
        }
        around.group = group.options;
    }
    const auto surround_update = [&] {
        if (plan.has_gradient) around.decay = group.decay();
        around.ema_momentum = options.ema_momentum;
        around.first_average = iterations == 0;
        around.overwrite = array.layout.streams[average_stream].data &&
                           options.ema_overwrite_frequency > 0 &&
                           (iterations + 1) % options.ema_overwrite_frequency == 0;
    };
    if (plan.has_gradient && lends()) {
        prepare();
        plan.lend = plan.update;
        plan.choose(internal(Internal::take), precision, 0);
        const Around of_gradient = std::exchange(around, {});
        surround_update();
        prepare();
        around = of_gradient;
    } else {
        surround_update();
        prepare();
    }
}

/// Writes what the step has made of the numbers that the rule keeps for whole arrays.
void Optimizer::keep_scalars() noexcept {
    const auto keep = [](const Plan& plan, const Array& array) {
        for (int k = 0; k < plan.rule->info.scalar_count; ++k) *array.scalars[k] = plan.scalars[k];
    };
    for (const Plan& plan : step_.plans) {
        if (&rule_ != plan.rule) continue;
        if (!rule_.info.sums_over_all) {
            keep(plan, arrays[plan.array]);
            continue;
        }
        for (const Array& array : arrays) keep(plan, array);  // they belong to all together
        return;
    }
}

/// Takes over what the step has watched; of arrays without a gradient what was seen last stays.
void Optimizer::keep_watched() noexcept {
    const auto keep = [](double& before, double now) {
        if (now >= 0 || std::isnan(now)) change(before, now);
    };
    for (std::size_t part = 0; part < step_.watched.size(); ++part) {
        Watched& before = watched[parts_of_[part]];
        const Watched& now = step_.watched[part];
        keep(before.grad_norm, now.grad_norm);
        keep(before.update_norm, now.update_norm);
        keep(before.param_norm, now.param_norm);
        keep(before.nonfinite, now.nonfinite);
    }
}

bool Optimizer::advance() noexcept {
    if (!step_.advance()) return false;
    if (!step_.watched.empty()) keep_watched();
    if (step_.skipped) {
        count(skipped_steps);
        return true;
    }
    if (!is_flushing_) count(calls);
    if (!updates()) {
        for (const std::size_t k : stepping_) change(clocks[k].in_window, true);
        count(window);
        return true;
    }
    if (rule_.info.scalar_count) keep_scalars();
    for (const std::size_t k : stepping_) {
        count(clocks[k].steps);
        change(clocks[k].in_window, false);
        change(clocks[k].begun, true);
    }
    change(window, std::int64_t{0});
    count(iterations);
    const bool is_known = step_.wants_norm || (step_.watch & watch_grad_norm);
    change(grad_norm, is_known ? step_.grad_norm : -1);
    return true;
}

}  // namespace instep
