#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// LARS: You, Gitman and Ginsburg 2017, "Large batch training of convolutional networks",
/// algorithm 1: the gradient in proportion to the length of the parameter.
template <class T>
struct Lars {
    static constexpr auto slots = state(optional("momentum"));
    static constexpr auto hyperparameters = names("momentum", "nesterov", "trust_ratio",
                                                  "trust_coefficient", "epsilon", "weight_decay");
    static constexpr auto sums = names("p_squared", "g_squared");

    double learning_rate, trust, epsilon, weight_decay;
    Factor<T> rate;
    T decay;
    Decay<T> mu;
    bool nesterov, has_ratio;

    explicit Lars(const Numbers<Lars>& now) {
        learning_rate = now.learning_rate;
        trust = now["trust_coefficient"];
        epsilon = now["epsilon"];
        weight_decay = now["weight_decay"];
        rate = 0;
        decay = weight_decay;
        mu = now["momentum"];
        nesterov = now["nesterov"] != 0;
        has_ratio = now["trust_ratio"] != 0;
    }

    template <class Add, Number V, class B>
    INSTEP_INLINE void measure(Add add, V p, V g, B) const {
        add("p_squared", p);
        add("g_squared", g);
    }
    void complete(const Totals<Lars>& totals) {
        const double length = sqrt(totals["p_squared"]), steepness = sqrt(totals["g_squared"]);
        const bool is_one = !has_ratio || length == 0 || steepness == 0;
        rate = learning_rate *
               (is_one ? 1 : trust * length / (steepness + weight_decay * length + epsilon));
    }
    template <Number V, class B>
    INSTEP_INLINE void operator()(V& p, V g, B& b) const {
        const V update = rate * (g + decay * p);
        if constexpr (used<B>) {
            b = mu * b + update;
            p -= nesterov ? mu * b + update : b;
        } else {
            p -= update;
        }
    }
};

}  // namespace instep::INSTEP_LEVEL
