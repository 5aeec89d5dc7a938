#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Yogi: Zaheer et al. 2018, "Adaptive methods for nonconvex optimization", algorithm 2; in Optax
/// with Adam's bias corrections.
template <class T>
struct Yogi {
    static constexpr auto slots = state("m", positive("v"));
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "corrects_bias");

    T rate, epsilon, epsilon_root, complement;
    Average<T> beta_1;

    explicit Yogi(const Numbers<Yogi>& now) {
        const double b1 = now["beta_1"], b2 = now["beta_2"], corrects = now["corrects_bias"];
        const double c1 = corrects ? complement_of_power(b1, now.step) : 1;
        const double c2 = corrects ? complement_of_power(b2, now.step) : 1;
        rate = now.learning_rate * sqrt(c2) / c1;
        epsilon = now["epsilon"] * sqrt(c2);
        epsilon_root = now["epsilon_root"] * c2;
        complement = 1 - b2;
        beta_1 = now.average(b1);
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v) const {
        m = beta_1(m, g);
        const V square = g * g;
        v -= complement * (sign(v - square) * square);
        p -= rate * m / (sqrt(v + epsilon_root) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
