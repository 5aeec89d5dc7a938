#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// Adagrad: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods for online learning and
/// stochastic optimization", the diagonal form of figure 1.
template <class T>
struct Adagrad {
    static constexpr auto slots = state("accumulator");
    static constexpr auto hyperparameters = names("learning_rate_decay", "epsilon");

    T rate, epsilon;

    explicit Adagrad(const StepNumbers& now) {
        const auto& [decay, epsilon_] = now.hyperparameters<2>();
        rate = now.learning_rate / (1 + static_cast<double>(now.step - 1) * decay);
        epsilon = epsilon_;
    }

    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& accumulator) const {
        accumulator += g * g;
        p -= rate * g / (sqrt(accumulator) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
