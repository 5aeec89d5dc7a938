#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// The schedule-free method: Defazio et al. 2024, "The road less scheduled", algorithm 1. The
/// parameter is its y, from which and from z follows the average x:
///     y = beta_1 x + (1 - beta_1) z.
template <class T>
struct Interpolation {
    static constexpr auto scalars = names("learning_rate_max", "weight_sum", "last_beta_1");

    double rate;  ///< of the step of z
    T from_y, from_z;

    /// Where the step of z is one update later in its schedule than the weight of x (Optax),
    /// `next_learning_rate` is that of the next update, else negative; `uniform`: all updates weigh
    /// the same (Keras).
    template <class Rule>
    Interpolation(const Numbers<Rule>& now, bool uniform) {
        const double beta = now["beta_1"], warmup_steps = now["warmup_steps"];
        const double next_rate = now["next_learning_rate"], t = static_cast<double>(now.step);
        const auto warmed = [&](double step) {
            return step < warmup_steps ? step / warmup_steps : 1;
        };
        double &largest = now.scalar("learning_rate_max"), &sum = now.scalar("weight_sum");
        const bool late = next_rate >= 0;
        rate = now.learning_rate * warmed(late ? t - 1 : t);
        const double weighing = (late ? next_rate : now.learning_rate) * warmed(t);
        if (weighing > largest) largest = weighing;
        const double weight = uniform ? 1 : real_power(largest, now["weight_lr_power"]);
        sum = uniform ? t : sum + weight;
        const double share = sum > 0 ? weight / sum : 0;
        // Of the y and z that were, x follows with the beta_1 that they were made with; where that
        // was 0, or there was none, all three are the same.
        double& last_beta = now.scalar("last_beta_1");
        const double before = last_beta > 0 ? last_beta : beta;
        const double from_x = (1 - share) * (before == beta ? 1 : beta / before);
        from_y = from_x;
        from_z = from_x * (1 - before);
        new_z = beta * share + (1 - beta);
        last_beta = beta;
    }

    /// Moves y after z has made its step.
    template <class V>
    INSTEP_INLINE void operator()(V& y, V z, V z_before) const {
        y = from_y * y + (new_z * z - from_z * z_before);
    }

private:
    T new_z;
};

/// With Adam's second moment.
template <class T>
struct ScheduleFreeAdamW {
    static constexpr auto slots = state(exact("z"), positive("v"));
    static constexpr auto scalars = Interpolation<T>::scalars;
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "warmup_steps", "weight_lr_power", "weight_decay",
              "next_learning_rate", "uniform_weights");

    Interpolation<T> interpolation;
    T rate, plain_rate, epsilon, decay;
    Average<T> beta_2;

    explicit ScheduleFreeAdamW(const Numbers<ScheduleFreeAdamW>& now)
        : interpolation(now, now["uniform_weights"] != 0) {
        const double b2 = now["beta_2"], c2 = complement_of_power(b2, now.step);
        rate = interpolation.rate * sqrt(c2);
        plain_rate = interpolation.rate;
        epsilon = now["epsilon"] * sqrt(c2);
        decay = now["weight_decay"];
        beta_2 = now.average(b2);
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& y, V g, V& z, V& v) const {
        v = beta_2.of_squares(v, beta_2.share(g * g));
        const V before = z;
        z -= rate * g / (sqrt(v) + epsilon) + plain_rate * (decay * y);
        interpolation(y, z, before);
    }
};

/// On gradient descent.
template <class T>
struct ScheduleFreeSGD {
    static constexpr auto slots = state(exact("z"));
    static constexpr auto scalars = Interpolation<T>::scalars;
    static constexpr auto hyperparameters =
        names("beta_1", "warmup_steps", "weight_lr_power", "weight_decay", "next_learning_rate");

    Interpolation<T> interpolation;
    T rate, decay;

    explicit ScheduleFreeSGD(const Numbers<ScheduleFreeSGD>& now) : interpolation(now, false) {
        rate = interpolation.rate;
        decay = now["weight_decay"];
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& y, V g, V& z) const {
        const V before = z;
        z -= rate * (g + decay * y);
        interpolation(y, z, before);
    }
};

}  // namespace instep::INSTEP_LEVEL
