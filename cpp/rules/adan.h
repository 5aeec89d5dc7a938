#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Adan: Xie et al. 2022, "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep
/// models", algorithm 1 with betas as decay rates (the paper's are their complements) and with bias
/// corrections, as in its authors' code. Optax adds 1 - beta_2 of the difference instead of beta_2.
template <class T>
struct Adan {
    static constexpr auto slots = state("m", "v", positive("n"), exact("previous_gradient"));
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "beta_3", "epsilon", "epsilon_root", "adds_complement");

    T from_m, from_v, ahead, epsilon, epsilon_root;
    Average<T> beta_1, beta_2, beta_3;
    bool first;

    explicit Adan(const Numbers<Adan>& now) {
        const double b1 = now["beta_1"], b2 = now["beta_2"], b3 = now["beta_3"];
        const double c1 = complement_of_power(b1, now.step), c2 = complement_of_power(b2, now.step);
        const double c3 = complement_of_power(b3, now.step), rate = now.learning_rate * sqrt(c3);
        const double part = now["adds_complement"] ? 1 - b2 : b2;
        ahead = part;
        from_m = rate / c1;
        from_v = rate * part / c2;
        epsilon = now["epsilon"] * sqrt(c3);
        epsilon_root = now["epsilon_root"] * c3;
        beta_1 = now.average(b1);
        beta_2 = now.average(b2);
        beta_3 = now.average(b3);
        first = now.first;
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v, V& n, V& previous) const {
        const V difference = first ? V(0) : g - previous;
        m = beta_1(m, g);
        v = beta_2(v, difference);
        const V looking = g + ahead * difference;
        n = beta_3.of_squares(n, beta_3.share(looking * looking));
        p -= (from_m * m + from_v * v) / (sqrt(n + epsilon_root) + epsilon);
        previous = g;
    }
};

}  // namespace instep::INSTEP_LEVEL
