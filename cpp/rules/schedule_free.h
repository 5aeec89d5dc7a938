#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// The schedule-free method: Defazio et al. 2024, "The road less scheduled", algorithm 1. The
/// parameter is its y, from which and from z follows the average x:
///     y = beta_1 x + (1 - beta_1) z.
template <class T>
struct Interpolation {
    static constexpr auto scalars = names("learning_rate_max", "weight_sum");

    double rate;  ///< of the step of z
    T from_y, from_z;

    /// `next_rate`: where the step of z is one update later in its schedule than the weight of x
    /// (Optax), the learning rate of the next update, else negative; `uniform`: all updates weigh
    /// the same (Keras).
    Interpolation(const StepNumbers& now, double beta, double warmup_steps, double exponent,
                  double next_rate, bool uniform) {
        const double t = static_cast<double>(now.step);
        const auto warmed = [&](double step) {
            return step < warmup_steps ? step / warmup_steps : 1;
        };
        double &largest = now.scalars[0], &sum = now.scalars[1];
        const bool late = next_rate >= 0;
        rate = now.learning_rate * warmed(late ? t - 1 : t);
        const double weighing = (late ? next_rate : now.learning_rate) * warmed(t);
        if (weighing > largest) largest = weighing;
        const double weight = uniform ? 1 : real_power(largest, exponent);
        sum = uniform ? t : sum + weight;
        const double share = sum > 0 ? weight / sum : 0;
        from_y = 1 - share;
        from_z = (1 - share) * (1 - beta);
        new_z = beta * share + (1 - beta);
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
    static constexpr auto slots = state("z", "v");
    static constexpr auto scalars = Interpolation<T>::scalars;
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "warmup_steps", "weight_lr_power", "weight_decay",
              "next_learning_rate", "uniform_weights");

    Interpolation<T> interpolation;
    T rate, plain_rate, epsilon, decay;
    Average<T> beta_2;

    explicit ScheduleFreeAdamW(const StepNumbers& now)
        : interpolation(now, now.own[0], now.own[3], now.own[4], now.own[6], now.own[7]) {
        const double b2 = now.own[1], c2 = complement_of_power(b2, now.step);
        rate = interpolation.rate * sqrt(c2);
        plain_rate = interpolation.rate;
        epsilon = now.own[2] * sqrt(c2);
        decay = now.own[5];
        beta_2 = now.average<T>(b2);
    }

    template <class V>
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
    static constexpr auto slots = state("z");
    static constexpr auto scalars = Interpolation<T>::scalars;
    static constexpr auto hyperparameters =
        names("beta_1", "warmup_steps", "weight_lr_power", "weight_decay", "next_learning_rate");

    Interpolation<T> interpolation;
    T rate, decay;

    explicit ScheduleFreeSGD(const StepNumbers& now)
        : interpolation(now, now.own[0], now.own[1], now.own[2], now.own[4], false) {
        rate = interpolation.rate;
        decay = now.own[3];
    }

    template <class V>
    INSTEP_INLINE void operator()(V& y, V g, V& z) const {
        const V before = z;
        z -= rate * (g + decay * y);
        interpolation(y, z, before);
    }
};

}  // namespace instep::INSTEP_LEVEL
