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
    Average<T> rho;

    explicit Adadelta(const StepNumbers& now) {
        const auto& [rho_, epsilon_] = now.hyperparameters<2>();
        learning_rate = now.learning_rate;
        rho = rho_;
        epsilon = epsilon_;
    }

    /// The two roots of the paper are taken as one, of a ratio, which then also gives the square of
    /// the update without its root's rounding error. Powers of two keep the ratio in range.
    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& mean_square, V& mean_square_update) const {
        constexpr T up = 0x1p20, down = 0x1p-20, root_down = 0x1p-10;
        const V share = rho.share(g * g);
        mean_square = rho.of_squares(mean_square, share);
        const V ratio = up * (mean_square_update + epsilon) / (mean_square + epsilon);
        mean_square_update =
            rho.of_squares(mean_square_update, down * (ratio * at_most_finite(share)));
        p -= learning_rate * (sqrt(ratio) * (root_down * g));
    }
};

}  // namespace instep::INSTEP_LEVEL
