#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Prodigy: Mishchenko and Defazio 2023, "Prodigy: an expeditiously adaptive parameter-free
/// learner", algorithm 4. `d`, the estimate of the distance to the solution, and its numerator `r`
/// belong to all arrays together. Optax corrects Adam's bias and takes epsilon times the new d.
template <class T>
struct Prodigy {
    static constexpr auto slots = state("m", positive("v"), "s", exact("p_0"));
    static constexpr auto scalars = names("d", "r");
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "beta_3", "epsilon", "estim_lr0", "estim_lr_coef",
              "safeguard_warmup", "weight_decay", "corrects_bias", "epsilon_of_new");
    static constexpr auto sums = names("product", "s_length");
    static constexpr bool sums_over_all = true;

    double beta_3_, epsilon_, coefficient, weight;
    T d, rate, epsilon, decay, share;
    Average<T> beta_1, beta_2;
    Decay<T> beta_3;
    bool of_new;

    explicit Prodigy(const Numbers<Prodigy>& now) {
        const double b1 = now["beta_1"], b2 = now["beta_2"], d0 = now["estim_lr0"];
        const double c1 = complement_of_power(b1, now.step), c2 = complement_of_power(b2, now.step);
        const double now_d = now.scalar("d"), correction = now["corrects_bias"] ? sqrt(c2) / c1 : 1;
        const double step = now_d * now.learning_rate * correction;
        beta_3_ = now["beta_3"];
        epsilon_ = now["epsilon"];
        coefficient = now["estim_lr_coef"];
        weight = now_d / d0 * step;
        d = now_d;
        rate = step;
        epsilon = now_d * epsilon_;
        decay = step * now["weight_decay"];
        share = (now["safeguard_warmup"] ? now_d : step) * now_d / d0;
        beta_1 = now.average(b1);
        beta_2 = now.average(b2);
        beta_3 = beta_3_;
        of_new = now["epsilon_of_new"] != 0;
    }

    template <class Add, Number V>
    INSTEP_INLINE void measure(Add add, V p, V g, V, V, V s, V start) const {
        add("product", g, start - p);
        add("s_length", abs(beta_3 * s + share * g), V(1));
    }
    void complete(const Totals<Prodigy>& totals) {
        double &estimate = totals.scalar("d"), &numerator = totals.scalar("r");
        const double length = totals["s_length"];
        numerator = beta_3_ * numerator + weight * totals["product"];
        if (length > 0 && coefficient * numerator / length > estimate)
            estimate = coefficient * numerator / length;
        if (of_new) epsilon = estimate * epsilon_;
    }
    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v, V& s, V&) const {
        const V scaled = d * g;
        m = beta_1(m, scaled);
        v = beta_2.of_squares(v, beta_2.share(scaled * scaled));
        s = beta_3 * s + share * g;
        p -= decay * p + rate * m / (sqrt(v) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
