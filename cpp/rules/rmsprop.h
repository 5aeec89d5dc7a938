#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// RMSprop: Tieleman and Hinton 2012, lecture 6.5 of "Neural networks for machine learning";
/// centered and with epsilon inside the root as in Graves 2013, "Generating sequences with
/// recurrent neural networks", equations 38 to 41.
template <class T>
struct RMSprop {
    static constexpr auto slots =
        state("mean_square", optional("mean_gradient"), optional("momentum"));
    static constexpr auto hyperparameters = names("rho", "momentum", "epsilon");

    T learning_rate, epsilon;
    Average<T> rho;
    Decay<T> mu;

    explicit RMSprop(const StepNumbers& now) {
        const auto& [rho_, momentum, epsilon_] = now.hyperparameters<3>();
        learning_rate = now.learning_rate;
        rho = now.average<T>(rho_);
        mu = momentum;
        epsilon = epsilon_;
    }

    template <class V, class A, class B>
    INSTEP_INLINE void operator()(V& p, V g, V& v, A& a, B& b) const {
        v = rho.of_squares(v, rho.share(g * g));
        V variance = v;
        if constexpr (used<A>) {
            a = rho(a, g);
            // Not negative, but for rounding; an infinite v stays infinite.
            variance = max(v - at_most_finite(a * a), V(0));
        }
        const V update = learning_rate * g / sqrt(variance + epsilon);
        if constexpr (used<B>) {
            b = mu * b + update;
            p -= b;
        } else {
            p -= update;
        }
    }
};

}  // namespace instep::INSTEP_LEVEL
