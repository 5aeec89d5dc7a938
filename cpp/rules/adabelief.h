#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// AdaBelief: Zhuang et al. 2020, "AdaBelief optimizer: adapting stepsizes by the belief in
/// observed gradients", algorithm 2; Nesterov's variant as in Optax.
template <class T>
struct AdaBelief {
    static constexpr auto slots = state("m", positive("v"));
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "nesterov");

    T from_m, from_g, epsilon, epsilon_root;
    Average<T> beta_1, beta_2;

    explicit AdaBelief(const Numbers<AdaBelief>& now) {
        const double b1 = now["beta_1"], b2 = now["beta_2"];
        const bool nesterov = now["nesterov"] != 0;
        const double c1 = complement_of_power(b1, now.step), c2 = complement_of_power(b2, now.step);
        const double rate = now.learning_rate * sqrt(c2);
        from_m = nesterov ? rate * b1 / complement_of_power(b1, now.step + 1) : rate / c1;
        from_g = nesterov ? rate * (1 - b1) / c1 : 0;
        epsilon = now["epsilon"] * sqrt(c2);
        epsilon_root = now["epsilon_root"];
        beta_1 = now.average(b1);
        beta_2 = now.average(b2);
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v) const {
        m = beta_1(m, g);
        const V surprise = g - m;
        v = beta_2.of_squares(v, beta_2.share(surprise * surprise)) + epsilon_root;
        p -= (from_m * m + from_g * g) / (sqrt(v) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
