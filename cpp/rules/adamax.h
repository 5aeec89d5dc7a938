#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Adamax: Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 2. Its
/// division by zero is avoided by epsilon, in the denominator or inside of the maximum.
template <class T>
struct Adamax {
    static constexpr auto slots = state("m", positive("u"));
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "learning_rate_decay", "epsilon_in_maximum");

    T rate, epsilon, epsilon_inside;
    Average<T> beta_1;
    Decay<T> beta_2;

    explicit Adamax(const Numbers<Adamax>& now) {
        const double b1 = now["beta_1"], earlier = static_cast<double>(now.step - 1);
        const bool in_maximum = now["epsilon_in_maximum"] != 0;
        rate = now.learning_rate / (1 + earlier * now["learning_rate_decay"]) /
               complement_of_power(b1, now.step);
        epsilon = in_maximum ? 0 : now["epsilon"];
        epsilon_inside = in_maximum ? now["epsilon"] : 0;
        beta_1 = now.average(b1);
        beta_2 = now["beta_2"];
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& u) const {
        m = beta_1(m, g);
        u = max(beta_2 * u + V(0), abs(g) + epsilon_inside);
        p -= rate * m / (u + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
