#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// Gradient descent, with momentum (Polyak 1964) and Nesterov's variant in the form of Sutskever
/// et al. 2013, "On the importance of initialization and momentum in deep learning". Dampening,
/// and the first step that is not dampened, as PyTorch has them.
template <class T>
struct SGD {
    static constexpr auto slots = state(optional("momentum"));
    static constexpr auto hyperparameters = names("momentum", "dampening", "nesterov");

    T learning_rate, share;
    Decay<T> mu;
    bool first, nesterov;

    explicit SGD(const StepNumbers& now) {
        const auto& [momentum, dampening, look_ahead] = now.hyperparameters<3>();
        learning_rate = now.learning_rate;
        mu = momentum;
        share = 1 - dampening;
        first = now.step == 1;
        nesterov = look_ahead != 0;
    }

    template <class V, class B>
    INSTEP_INLINE void operator()(V& p, V g, B& b) const {
        if constexpr (used<B>) {
            b = first ? g : mu * b + share * g;
            p -= learning_rate * (nesterov ? mu * b + g : b);
        } else {
            p -= learning_rate * g;
        }
    }
};

}  // namespace instep::INSTEP_LEVEL
