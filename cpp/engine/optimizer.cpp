#include "engine/optimizer.h"

#include <utility>

#include "engine/dispatch.h"
#include "engine/float_mode.h"

namespace instep {
namespace {

Update kernel_of(const RuleKernels& rule, Dtype dtype, unsigned slots) {
    return rule.update[static_cast<int>(dtype)][slots];
}

}  // namespace

Optimizer::Optimizer(const RuleKernels& rule, std::vector<Array> bound)
    : arrays(std::move(bound)), rule_(rule) {}

Work& Optimizer::add_work(const Array& array) {
    Work& work = step_.works.emplace_back();
    work.shape = &array.shape;
    work.size = array.size;
    work.dtype = array.dtype;
    return work;
}

void Optimizer::prepare(const std::vector<Stream>& gradients) {
    const FlushSubnormals mode;  // the numbers of the step, too, in one floating-point mode
    step_.works.clear();
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
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        if (!gradients[k].data) continue;
        const Array& array = arrays[k];
        const RuleKernels& rule = level().accumulate;
        Coefficients& coefficients = array.in_window ? further_ : first_;
        const double first = !array.in_window;
        rule.prepare[static_cast<int>(array.dtype)](0, 0, &first, &coefficients);
        Work& work = add_work(array);
        work.streams[param_stream] = array.accumulator;
        work.streams[grad_stream] = gradients[k];
        work.raw_gradient = true;
        work.update = kernel_of(rule, array.dtype, 0);
        work.coefficients = &coefficients;
        work.around.scale = 1 / options.loss_scale_factor;
        stepping_.push_back(k);
    }
}

void Optimizer::prepare_update(const std::vector<Stream>& gradients) {
    step_.wants_norm = options.global_clipnorm.has_value();
    step_.global_clipnorm = options.global_clipnorm.value_or(no_clipping);
    coefficients_.clear();
    coefficients_.reserve(arrays.size());
    const double unscale = 1 / options.loss_scale_factor;
    const double mean = 1 / static_cast<double>(options.accumulation_steps);
    const Array* previous = nullptr;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        const Array& array = arrays[k];
        const Group& group = groups[array.group];
        const bool has_gradient = gradients[k].data || array.in_window;
        if (!has_gradient && !array.average.data) continue;

        Work& work = add_work(array);
        work.streams[param_stream] = array.param;
        work.streams[average_stream] = array.average;
        work.around.ema_momentum = options.ema_momentum;
        work.around.first_average = iterations == 0;
        work.around.overwrite = array.average.data && options.ema_overwrite_frequency > 0 &&
                                (iterations + 1) % options.ema_overwrite_frequency == 0;
        if (has_gradient) {
            if (gradients[k].data) {
                work.raw_gradient = true;
                work.streams[grad_stream] = gradients[k];
                if (array.in_window) {
                    work.streams[accumulated_stream] = array.accumulator;
                    work.around.unscale = unscale;
                }
            } else {
                work.streams[grad_stream] = array.accumulator;
            }
            work.around.scale = (array.in_window ? 1 : unscale) * mean * (group.maximize ? -1 : 1);
            work.around.clipvalue = group.clipvalue;
            work.around.l2 = group.l2;
            work.around.decay = group.learning_rate * group.weight_decay;
            work.clipnorm = group.clipnorm;
            unsigned slots = 0;
            for (int s = 0; s < rule_.slot_count; ++s) {
                const Stream& slot = array.slots[static_cast<std::size_t>(s)];
                work.streams[first_slot + s] = slot;
                if (slot.data) slots |= 1u << s;
            }
            work.update = kernel_of(rule_, array.dtype, slots);
            const bool as_before = previous && previous->group == array.group &&
                                   previous->steps == array.steps && previous->dtype == array.dtype;
            work.coefficients = as_before ? &coefficients_.back() : coefficients_of(array);
            previous = &array;
            stepping_.push_back(k);
        } else {
            work.update = kernel_of(level().rest, array.dtype, 0);
        }
    }
}

const Coefficients* Optimizer::coefficients_of(const Array& array) {
    const Group& group = groups[array.group];
    rule_.prepare[static_cast<int>(array.dtype)](group.learning_rate, array.steps + 1,
                                                 group.own.data(), &coefficients_.emplace_back());
    return &coefficients_.back();
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
