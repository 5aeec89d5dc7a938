#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Sign descent: Bernstein et al. 2018, "signSGD: compressed optimisation for non-convex problems",
/// algorithm 1.
template <class T>
struct SignSGD {
    static constexpr auto slots = state();
    static constexpr bool rests = true;
    static constexpr auto hyperparameters = names();

    T learning_rate;

    explicit SignSGD(const Numbers<SignSGD>& now) { learning_rate = now.learning_rate; }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g) const {
        p -= learning_rate * sign(g);
    }
};

}  // namespace instep::INSTEP_LEVEL
