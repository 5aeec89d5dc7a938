// An optimizer bound to arrays: their groups, clocks and accumulation window. Knows no Python.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/dispatch.h"
#include "engine/step.h"

namespace instep {

/// What a group of parameter arrays has of its own.
struct Group {
    double learning_rate = 0, l2 = 0, weight_decay = 0;
    double clipnorm = no_clipping, clipvalue = no_clipping;
    bool maximize = false;
    std::array<double, max_hyperparameters> own{};  ///< of the rule, in its order
};

/// What all groups share.
struct Options {
    double loss_scale_factor = 1;
    std::optional<double> global_clipnorm;
    bool skip_nonfinite = false;
    std::int64_t accumulation_steps = 1;
    double ema_momentum = 0;
    std::int64_t ema_overwrite_frequency = 0;  ///< in updates; 0: never
    bool global_clock = false;  ///< rules count all updates, not only those of the array
    /// Averages move, and are taken over, at every call of an accumulation window.
    bool averages_every_call = false;
};

/// One parameter array with its state.
struct Array {
    Layout layout;
    std::size_t group = 0;
    std::array<double*, max_scalars> scalars{};  ///< numbers that the rule keeps for the array
};

/// Counters end here, and stay: what is computed from them never overflows.
inline constexpr std::int64_t most_steps = std::int64_t{1} << 62;

/// What an array has been through.
struct Clock {
    std::int64_t steps = 0;  ///< updates of this array
    bool in_window = false;  ///< its accumulator holds gradients
};

/// Counters change while a step runs, and other threads may look at them.
template <class T>
T look_at(const T& counter) {
    return std::atomic_ref<T>(const_cast<T&>(counter)).load(std::memory_order_relaxed);
}
template <class T>
void change(T& counter, T value) {
    std::atomic_ref<T>(counter).store(value, std::memory_order_relaxed);
}

class Optimizer {
public:
    Optimizer(const RuleKernels& rule, std::vector<Array> arrays);

    std::vector<Array> arrays;
    std::vector<Clock> clocks;  ///< of the arrays
    std::vector<Group> groups;
    Options options;

    std::int64_t iterations = 0, skipped_steps = 0;
    std::int64_t window = 0;  ///< calls so far that await the update
    double grad_norm = -1;    ///< of the last update; negative where it was not wanted

    const RuleKernels& rule() const { return rule_; }
    /// Whether the next call updates, or only accumulates.
    bool updates() const { return window + 1 >= options.accumulation_steps; }

    /// To be called when anything but a learning rate was assigned to.
    void changed() { repeatable_ = false; }

    /// Prepares a step with one gradient per array, without data where there is none. Can fail; has
    /// changed nothing yet.
    void prepare(const std::vector<Stream>& gradients);
    /// Carries out the step prepared: arrays, state and counters. May run without Python's lock.
    void run() noexcept;

    /// Whether the step prepared has two parts: in the first one gradients are handed out, clipped
    /// and so on, in the slots of their arrays; in the second one the steps are taken that somebody
    /// else has put there instead.
    bool has_two_parts() const { return &rule_ == &level().direction && updates(); }
    /// The first part; false where the step is skipped. Nothing but those slots has changed.
    bool hand_out() noexcept;
    /// Prepares the second part, for `run`.
    void prepare_to_take();
    /// The arrays that have a gradient in this step.
    const std::vector<std::size_t>& stepping() const { return stepping_; }

private:
    void prepare_accumulation(const std::vector<Stream>& gradients);
    void prepare_update(const std::vector<Stream>& gradients);
    /// Prepares an update like the last one, if it is one: only gradients and numbers differ.
    bool repeat_update(const std::vector<Stream>& gradients);
    /// Adds a plan to the step: that of an array with a gradient, given or accumulated, or without.
    void add_plan(std::size_t array, bool is_given, bool has_gradient);
    void set_numbers(Plan& plan) const;
    void keep_scalars() noexcept;

    const RuleKernels& rule_;
    Step step_;
    std::vector<std::size_t> stepping_;
    bool takes_ = false;  ///< the step under way is a second part
    double norm_handed_out_ = 0;
    bool repeatable_ = false;  ///< the last update was of all arrays, with gradients of their own
};

}  // namespace instep
