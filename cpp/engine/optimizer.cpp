#include "engine/optimizer.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

namespace instep {
namespace {

void count(std::int64_t& counter) {
    change(counter, std::min(counter + 1, most_steps));
}

/// Those that a rule always has.
unsigned required_slots(const RuleInfo& rule) {
    unsigned slots = 0;
    for (int s = 0; s < rule.slot_count; ++s)
        if (!rule.slots[s].optional) slots |= bit(s);
    return slots;
}

}  // namespace

Optimizer::Optimizer(const Rule& rule, std::vector<Array> bound)
    : arrays(std::move(bound)), clocks(arrays.size()), watched(arrays.size()), rule_(rule) {}

bool Optimizer::can_be_lazy(std::size_t array) const {
    const Layout& layout = arrays[array].layout;
    return !lends() && rule_.info.sum_count == 0 &&
           (layout.parts.empty() || layout.has_row_numbers());
}

void Optimizer::settle() noexcept {
    for (std::size_t k = 0; k < rows_.size(); ++k)
        if (rows_[k]) rows_[k]->missed.settle(arrays[k].layout);
}

bool Optimizer::is_settled() const {
    return std::none_of(rows_.begin(), rows_.end(),
                        [](const auto& rows) { return rows && rows->missed.any(); });
}

bool Optimizer::is_behind(std::size_t array) const {
    if (array >= rows_.size() || !rows_[array]) return false;
    // Lazy rows miss nothing but what becomes of their averages.
    const bool is_exact = groups[arrays[array].group].options.sparse == exact;
    return (is_exact || options.ema_overwrite_frequency > 0) && rows_[array]->missed.any_row();
}

const std::vector<std::uint32_t>* Optimizer::rows_in_window(std::size_t array) const {
    const RowState* const rows = array < rows_.size() ? rows_[array].get() : nullptr;
    return rows && !rows->all_in_window && clocks[array].in_window ? &rows->in_window : nullptr;
}

std::unique_ptr<RowState> RowState::of_window(std::vector<std::uint32_t> ids) {
    auto state = std::make_unique<RowState>();
    state->in_window = std::move(ids);
    state->is_clean = true;
    return state;
}

RowState* Optimizer::rows_of(std::size_t array, const Stream& gradient) {
    if (rows_.size() < arrays.size()) {
        if (!gradient.rows) return nullptr;
        rows_.resize(arrays.size());
    }
    std::unique_ptr<RowState>& rows = rows_[array];
    if (!rows && gradient.rows && arrays[array].layout.row_length) {
        rows = std::make_unique<RowState>();
        rows->all_in_window = clocks[array].in_window;
    }
    if (rows) {
        rows->missing.reset();
        rows->part = -1;
        rows->settles = rows->cleans = false;
    }
    return rows.get();
}

const TouchedRows* Optimizer::find_touched(std::size_t array, const Stream& gradient) {
    RowState* const rows = rows_of(array, gradient);
    if (!rows) return nullptr;
    const Clock& clock = clocks[array];
    const bool some_given = gradient.rows || !gradient.data;
    const bool some_in_window = !clock.in_window || !rows->all_in_window;
    const bool has_gradient = gradient.data || clock.in_window;
    if (!has_gradient) return nullptr;
    const bool is_exact = groups[arrays[array].group].options.sparse == exact;
    const bool has_parts = !arrays[array].layout.parts.empty();
    // The same for all ranks, of which some have nothing of the array.
    const bool may_have_parts = rule_.info.divisible_slot >= 0;
    if (!some_given || !some_in_window || !can_be_lazy(array) || (is_exact && may_have_parts)) {
        rows->settles = rows->missed.any();
        return nullptr;
    }
    if (!clock.in_window) {
        rows->touched.ids = &gradient.rows->ids();
    } else if (gradient.rows) {
        const std::vector<std::uint32_t>& given = gradient.rows->ids();
        rows->together.clear();
        std::set_union(rows->in_window.begin(), rows->in_window.end(), given.begin(), given.end(),
                       std::back_inserter(rows->together));
        rows->touched.ids = &rows->together;
    } else {
        rows->touched.ids = &rows->in_window;
    }
    rows->touched.length = arrays[array].layout.row_length;
    rows->touched.clears = clock.in_window;
    rows->touched.parts = has_parts ? &rule_.in(arrays[array].layout.precision).parts : nullptr;
    rows->settles = rows->missed.is_full();
    return &rows->touched;
}

Missed Optimizer::resting(std::size_t array) {
    Plan plan;
    plan.array = array;
    plan.has_gradient = false;
    plan.choose(internal(Internal::rest), arrays[array].layout.precision, 0);
    set_numbers(plan);
    Missed missed{plan.update,
                  bit(param_stream) | bit(grad_stream) | bit(average_stream),
                  bit(param_stream) | bit(average_stream),
                  {}};
    missed.noise_key = Noise::key_of(options.seed, iterations, array);
    return missed;
}

void Optimizer::find_missing(std::size_t array, RowState& rows, const Plan& update) {
    const Layout& layout = arrays[array].layout;
    const bool has_average = layout.streams[average_stream].data;
    if (groups[arrays[array].group].options.sparse == exact) {
        const bool rests_at_zero = !has_average && instep::rests_at_zero(update, layout.precision);
        if (!(rests_at_zero && rule_.info.rests && update.slots == required_slots(rule_.info))) {
            const unsigned used = all_streams & ~bit(accumulated_stream);
            rows.missing = Missed{update.update, used, used & ~bit(grad_stream), {}};
            rows.missing->rests_at_zero = rests_at_zero;
            rows.missing->noise_key = Noise::key_of(options.seed, iterations, array);
        }
    } else if (has_average) {
        rows.missing = resting(array);
    }
    if (rows.missing) rows.missed.reserve(layout.rows());
    rows.touched.missed = rows.missing || rows.missed.any() ? &rows.missed : nullptr;
    rows.touched.others_miss = rows.missing.has_value();
}

/// What rows have missed, and what the accumulators hold.
void Optimizer::keep_rows() noexcept {
    for (std::size_t k = 0; k < rows_.size(); ++k) {
        if (!rows_[k]) continue;
        RowState& rows = *rows_[k];
        if (rows.missing) {
            if (rows.part >= 0)
                rows.missing->factors =
                    step_.works[static_cast<std::size_t>(rows.part)].block.factors;
            rows.missed.add(*rows.missing);
        }
        rows.missing.reset();
    }
    for (const std::size_t k : stepping_) {
        if (k >= rows_.size() || !rows_[k]) continue;
        RowState& rows = *rows_[k];
        const bool is_touched = rows.part >= 0;
        if (updates()) {
            if (clocks[k].in_window && !is_touched) rows.is_clean = false;
            rows.in_window.clear();
            rows.all_in_window = false;
        } else if (!is_touched) {
            rows.all_in_window = true;
            rows.is_clean = false;
        } else {
            rows.in_window.swap(rows.together);
            rows.is_clean = true;
        }
    }
}

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
        step_.is_shared = sharing.is_shared;
        set_spans();
    }
    step_.skip_nonfinite = options.skip_nonfinite;
    step_.wants_norm = updates() && options.global_clipnorm != no_limit;
    step_.global_clipnorm = options.global_clipnorm;
    step_.watch = updates() ? static_cast<unsigned>(options.watch) : 0;
    step_.reserve();
}

void Optimizer::set_spans() {
    std::vector<Step::Border> ends;
    for (const Sharing::Border& end : sharing.ends)
        ends.push_back({&arrays[end.array].layout, end.element});
    step_.set_spans(ends);
}

void Optimizer::prepare_accumulation(const std::vector<Stream>& gradients) {
    bool begins_before = false;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        RowState* const rows = rows_of(k, gradients[k]);
        if (!gradients[k].data) continue;
        const Layout& layout = arrays[k].layout;
        const TouchedRows* const touched =
            rows && gradients[k].rows && !(clocks[k].in_window && rows->all_in_window)
                ? &rows->touched
                : nullptr;
        const bool begins = !clocks[k].in_window && !touched;
        if (step_.works.empty() || step_.works.back().precision() != layout.precision ||
            begins_before != begins) {
            const double first = begins;
            Plan& plan = step_.plans.emplace_back();
            plan.choose(internal(Internal::accumulate), layout.precision, 0);
            plan.around.scale =
                window_share(options.gradient_accumulation_steps) / options.loss_scale_factor;
            plan.prepare(layout.precision, {}, &first);
        }
        begins_before = begins;
        if (touched) {
            const std::vector<std::uint32_t>& given = gradients[k].rows->ids();
            rows->together.clear();
            if (clocks[k].in_window)
                std::set_union(rows->in_window.begin(), rows->in_window.end(), given.begin(),
                               given.end(), std::back_inserter(rows->together));
            else
                rows->together = given;
            rows->touched = {&given, layout.row_length};
            rows->cleans = !clocks[k].in_window && !rows->is_clean;
            rows->part = static_cast<std::ptrdiff_t>(step_.works.size());
        }
        step_.add(layout, accumulated_stream, bit(param_stream), gradients[k], true, touched);
        stepping_.push_back(k);
    }
    if (!counting.every_call) return;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const Layout& layout = arrays[k].layout;
        if (!layout.streams[average_stream].data) continue;
        if (k < rows_.size() && rows_[k]) {
            rows_[k]->settles = rows_[k]->missed.is_full();
            rows_[k]->missing = resting(k);
            rows_[k]->missed.reserve(layout.rows());
            continue;
        }
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
        const TouchedRows* const touched = find_touched(k, gradients[k]);
        repeatable &= given && !clock.in_window && gradients[k].contiguous();
        // Numbers that depend on nothing but the count of all updates go on.
        if (!has_gradient && counting.global && rule_.info.scalar_count && !rule_.info.sum_count)
            add_plan(k, true, true);
        if (!has_gradient && !layout.streams[average_stream].data) continue;
        if (RowState* const rows = k < rows_.size() ? rows_[k].get() : nullptr;
            rows && !has_gradient) {
            rows->settles = rows->missed.is_full();
            rows->missing = resting(k);
            rows->missed.reserve(layout.rows());
            continue;
        }
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
                  given || !has_gradient ? gradients[k] : layout.streams[accumulated_stream], given,
                  touched);
        if (touched) {
            rows_[k]->part = static_cast<std::ptrdiff_t>(step_.works.size()) - 1;
            find_missing(k, *rows_[k], step_.plans.back());
        }
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

const Array& Optimizer::holder_of_numbers(std::size_t array) const {
    if (rule_.info.is_over_all())
        for (std::size_t k = 0; k < arrays.size(); ++k)
            if (clocks[k].steps > 0) return arrays[k];
    return arrays[array];
}

void Optimizer::set_numbers(Plan& plan) const {
    const Array& array = arrays[plan.array];
    const Precision precision = array.layout.precision;
    const Clock& clock = clocks[plan.array];
    const Group& group = groups[array.group];
    if (const auto scalars = static_cast<std::size_t>(plan.rule->info.scalar_count)) {
        const Array& holder = holder_of_numbers(plan.array);
        for (std::size_t k = 0; k < scalars; ++k) plan.scalars[k] = *holder.scalars[k];
    }
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
        const auto scalars = static_cast<std::size_t>(plan.rule->info.scalar_count);
        for (std::size_t k = 0; k < scalars; ++k) *array.scalars[k] = plan.scalars[k];
    };
    for (const Plan& plan : step_.plans) {
        if (&rule_ != plan.rule) continue;
        if (!rule_.info.is_over_all()) {
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

Pause Optimizer::advance() noexcept {
    for (std::size_t k = 0; k < rows_.size(); ++k) {
        if (!rows_[k]) continue;
        const Layout& layout = arrays[k].layout;
        if (std::exchange(rows_[k]->settles, false)) rows_[k]->missed.settle(layout);
        if (std::exchange(rows_[k]->cleans, false))
            clear(layout.shape, layout.streams[accumulated_stream], 0, layout.size,
                  layout.precision);
    }
    if (const Pause pause = step_.advance(); pause != Pause::none) return pause;
    if (!step_.watched.empty()) keep_watched();
    if (step_.skipped) {
        count(skipped_steps);
        return Pause::none;
    }
    if (!rows_.empty()) keep_rows();
    if (!is_flushing_) count(calls);
    if (!updates()) {
        for (const std::size_t k : stepping_) change(clocks[k].in_window, true);
        count(window);
        return Pause::none;
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
    return Pause::none;
}

}  // namespace instep
