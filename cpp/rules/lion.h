#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Lion: Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2.
template <class T>
struct Lion {
    static constexpr auto slots = state("m");
    static constexpr auto hyperparameters = names("beta_1", "beta_2");

    T learning_rate;
    Average<T> beta_1, beta_2;

    explicit Lion(const Numbers<Lion>& now) {
        learning_rate = now.learning_rate;
        beta_1 = now.average(now["beta_1"]);
        beta_2 = now.average(now["beta_2"]);
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m) const {
        p -= learning_rate * sign(beta_1(m, g));
        m = beta_2(m, g);
    }
};

}  // namespace instep::INSTEP_LEVEL
