#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Gradient descent, with momentum (Polyak 1964) and Nesterov's variant in the form of Sutskever
/// et al. 2013, "On the importance of initialization and momentum in deep learning". Dampening,
/// and the first step that is not dampened, as PyTorch has them. As in Sutskever's equations the
/// learning rate may be part of the momentum, which tells when it changes.
template <class T>
struct SGD {
    static constexpr auto slots = state(optional("momentum"));
    static constexpr bool rests = true;
    static constexpr auto hyperparameters =
        names("momentum", "dampening", "nesterov", "rate_in_momentum");

    T learning_rate, outer_rate, inner_rate, share;
    Decay<T> mu;
    bool first, nesterov;

    explicit SGD(const Numbers<SGD>& now) {
        const bool rate_inside = now["rate_in_momentum"] != 0;
        learning_rate = now.learning_rate;
        outer_rate = rate_inside ? 1 : now.learning_rate;
        inner_rate = rate_inside ? now.learning_rate : 1;
        mu = now["momentum"];
        share = (rate_inside ? now.learning_rate : 1) * (1 - now["dampening"]);
        first = now.begins && !rate_inside;
        nesterov = now["nesterov"] != 0;
    }

    template <Number V, class B>
    INSTEP_INLINE void operator()(V& p, V g, B& b) const {
        if constexpr (used<B>) {
            b = first ? g : mu * b + share * g;
            p -= outer_rate * (nesterov ? mu * b + inner_rate * g : b);
        } else {
            p -= learning_rate * g;
        }
    }
};

}  // namespace instep::INSTEP_LEVEL
