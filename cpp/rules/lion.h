#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// Lion: Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2.
template <class T>
struct Lion {
    static constexpr auto slots = state("m");
    static constexpr auto hyperparameters = names("beta_1", "beta_2");

    T learning_rate;
    Average<T> beta_1, beta_2;

    explicit Lion(const StepNumbers& now) {
        const auto& [b1, b2] = now.hyperparameters<2>();
        learning_rate = now.learning_rate;
        beta_1 = now.average<T>(b1);
        beta_2 = now.average<T>(b2);
    }

    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& m) const {
        p -= learning_rate * sign(beta_1(m, g));
        m = beta_2(m, g);
    }
};

}  // namespace instep::INSTEP_LEVEL
