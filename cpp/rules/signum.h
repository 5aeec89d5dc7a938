#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Signum: Bernstein et al. 2018, "signSGD: compressed optimisation for non-convex problems",
/// algorithm 2.
template <class T>
struct Signum {
    static constexpr auto slots = state("momentum");
    static constexpr auto hyperparameters = names("momentum");

    T learning_rate;
    Average<T> mu;

    explicit Signum(const Numbers<Signum>& now) {
        learning_rate = now.learning_rate;
        mu = now.average(now["momentum"]);
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m) const {
        m = mu(m, g);
        p -= learning_rate * sign(m);
    }
};

}  // namespace instep::INSTEP_LEVEL
