#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// LARS: You, Gitman and Ginsburg 2017, "Large batch training of convolutional networks",
/// algorithm 1: the gradient in proportion to the length of the parameter.
template <class T>
struct Lars {
    static constexpr auto slots = state(optional("momentum"));
    static constexpr auto hyperparameters =
        names("momentum", "nesterov", "trust_coefficient", "epsilon", "weight_decay");
    static constexpr int sums = 2;

    double learning_rate, trust, epsilon, weight_decay;
    Factor<T> rate;
    T decay;
    Decay<T> mu;
    bool nesterov;

    explicit Lars(const StepNumbers& now) {
        const auto& [momentum, look_ahead, trust_, epsilon_, decay_] = now.hyperparameters<5>();
        learning_rate = now.learning_rate;
        trust = trust_;
        epsilon = epsilon_;
        weight_decay = decay_;
        rate = 0;
        decay = decay_;
        mu = momentum;
        nesterov = look_ahead != 0;
    }

    template <class Add, class V, class B>
    INSTEP_INLINE void measure(Add add, V p, V g, B) const {
        add(0, p, p);
        add(1, g, g);
    }
    void complete(const double* totals, double*) {
        const double length = sqrt(totals[0]), steepness = sqrt(totals[1]);
        const bool is_zero = length == 0 || steepness == 0;
        rate = learning_rate *
               (is_zero ? 1 : trust * length / (steepness + weight_decay * length + epsilon));
    }
    template <class V, class B>
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
