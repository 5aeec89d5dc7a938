#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Adagrad: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods for online learning and
/// stochastic optimization", the diagonal form of figure 1. Keras and others have epsilon inside
/// the root; Optax has no update where the sum is zero.
template <class T>
struct Adagrad {
    static constexpr auto slots = state(positive("accumulator"));
    static constexpr bool rests = true;
    static constexpr auto hyperparameters =
        names("learning_rate_decay", "epsilon", "epsilon_in_root", "rests_at_zero");

    T rate, epsilon_inside, epsilon;
    bool rests_at_zero;

    explicit Adagrad(const Numbers<Adagrad>& now) {
        const double earlier = static_cast<double>(now.step - 1);
        const bool in_root = now["epsilon_in_root"] != 0;
        rate = now.learning_rate / (1 + earlier * now["learning_rate_decay"]);
        epsilon_inside = in_root ? now["epsilon"] : 0;
        epsilon = in_root ? 0 : now["epsilon"];
        rests_at_zero = now["rests_at_zero"] != 0;
        now.plain_if(!in_root && !rests_at_zero);
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& accumulator) const {
        accumulator += g * g;
        V sum = accumulator;
        if constexpr (!V::plain) {
            if (rests_at_zero) g = select(V(0) < sum, g, V(0));
            if (rests_at_zero) sum = select(V(0) < sum, sum, V(1));
            sum += epsilon_inside;
        }
        p -= rate * g / (sqrt(sum) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
