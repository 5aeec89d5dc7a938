#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// Signum: Bernstein et al. 2018, "signSGD: compressed optimisation for non-convex problems",
/// algorithm 2.
template <class T>
struct Signum {
    static constexpr auto slots = state("momentum");
    static constexpr auto hyperparameters = names("momentum");

    T learning_rate;
    Average<T> mu;

    explicit Signum(const StepNumbers& now) {
        const auto& [momentum] = now.hyperparameters<1>();
        learning_rate = now.learning_rate;
        mu = now.average<T>(momentum);
    }

    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& m) const {
        m = mu(m, g);
        p -= learning_rate * sign(m);
    }
};

}  // namespace instep::INSTEP_LEVEL
