#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// Adadelta: Zeiler 2012, "ADADELTA: an adaptive learning rate method", algorithm 1, its update
/// times a learning rate (1 in the paper).
template <class T>
struct Adadelta {
    static constexpr auto slots = state("mean_square", "mean_square_update");
    static constexpr auto hyperparameters = names("rho", "epsilon");

    T learning_rate, epsilon;
    Decay<T> rho;

    explicit Adadelta(const StepNumbers& now) {
        const auto& [rho_, epsilon_] = now.hyperparameters<2>();
        learning_rate = now.learning_rate;
        rho = rho_;
        epsilon = epsilon_;
    }

    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& mean_square, V& mean_square_update) const {
        mean_square = rho * mean_square + rho.complement * (g * g);
        const V update = sqrt(mean_square_update + epsilon) / sqrt(mean_square + epsilon) * g;
        mean_square_update = rho * mean_square_update + rho.complement * (update * update);
        p -= learning_rate * update;
    }
};

}  // namespace instep::INSTEP_LEVEL
