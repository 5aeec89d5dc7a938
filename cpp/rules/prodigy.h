#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// Prodigy: Mishchenko and Defazio 2023, "Prodigy: an expeditiously adaptive parameter-free
/// learner", algorithm 4. `d`, the estimate of the distance to the solution, and its numerator `r`
/// belong to all arrays together. Optax corrects Adam's bias and takes epsilon times the new d.
template <class T>
struct Prodigy {
    static constexpr auto slots = state("m", "v", "s", "p_0");
    static constexpr auto scalars = names("d", "r");
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "beta_3", "epsilon", "estim_lr0", "estim_lr_coef",
              "safeguard_warmup", "weight_decay", "corrects_bias", "epsilon_of_new");
    static constexpr int sums = 2;
    static constexpr bool sums_over_all = true;

    double beta_3_, epsilon_, coefficient, weight;
    T d, rate, epsilon, decay, share;
    Average<T> beta_1, beta_2;
    Decay<T> beta_3;
    bool of_new;

    explicit Prodigy(const StepNumbers& now) {
        const auto& [b1, b2, b3, epsilon__, d0, coefficient_, safeguard, weight_decay, corrects,
                     epsilon_of_new] = now.hyperparameters<10>();
        const double now_d = now.scalars[0];
        const double correction =
            corrects ? sqrt(complement_of_power(b2, now.step)) / complement_of_power(b1, now.step)
                     : 1;
        const double step = now_d * now.learning_rate * correction;
        beta_3_ = b3;
        epsilon_ = epsilon__;
        coefficient = coefficient_;
        weight = now_d / d0 * step;
        d = now_d;
        rate = step;
        epsilon = now_d * epsilon_;
        decay = step * weight_decay;
        share = (safeguard ? now_d : step) * now_d / d0;
        beta_1 = now.average<T>(b1);
        beta_2 = now.average<T>(b2);
        beta_3 = b3;
        of_new = epsilon_of_new != 0;
    }

    template <class Add, class V>
    INSTEP_INLINE void measure(Add add, V p, V g, V, V, V s, V start) const {
        add(0, g, start - p);
        add(1, abs(beta_3 * s + share * g), V(1));
    }
    void complete(const double* totals, double* numbers) {
        double &estimate = numbers[0], &numerator = numbers[1];
        numerator = beta_3_ * numerator + weight * totals[0];
        if (totals[1] > 0 && coefficient * numerator / totals[1] > estimate)
            estimate = coefficient * numerator / totals[1];
        if (of_new) epsilon = estimate * epsilon_;
    }
    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v, V& s, V&) const {
        const V scaled = d * g;
        m = beta_1(m, scaled);
        v = beta_2.of_squares(v, beta_2.share(scaled * scaled));
        s = beta_3 * s + share * g;
        p -= decay * p + rate * m / (sqrt(v) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
