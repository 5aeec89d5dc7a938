#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// Adamax: Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 2. Its
/// division by zero is avoided by epsilon, in the denominator or inside of the maximum.
template <class T>
struct Adamax {
    static constexpr auto slots = state("m", "u");
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "learning_rate_decay", "epsilon_in_maximum");

    T rate, epsilon, epsilon_inside;
    Average<T> beta_1;
    Decay<T> beta_2;

    explicit Adamax(const StepNumbers& now) {
        const auto& [b1, b2, epsilon_, decay, in_maximum] = now.hyperparameters<5>();
        rate = now.learning_rate / (1 + static_cast<double>(now.step - 1) * decay) /
               complement_of_power(b1, now.step);
        epsilon = in_maximum ? 0 : epsilon_;
        epsilon_inside = in_maximum ? epsilon_ : 0;
        beta_1 = now.average<T>(b1);
        beta_2 = b2;
    }

    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& u) const {
        m = beta_1(m, g);
        u = max(beta_2 * u + V(0), abs(g) + epsilon_inside);
        p -= rate * m / (u + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
