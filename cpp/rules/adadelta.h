#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Adadelta: Zeiler 2012, "ADADELTA: an adaptive learning rate method", algorithm 1, its update
/// times a learning rate (1 in the paper). TensorFlow.js divides by the mean square from before
/// the step.
template <class T>
struct Adadelta {
    static constexpr auto slots = state(positive("mean_square"), positive("mean_square_update"));
    static constexpr auto hyperparameters = names("rho", "epsilon", "divides_by_earlier");

    /// Powers of two that keep a ratio in range, and a root of it.
    static constexpr T up = 0x1p20, down = 0x1p-20, root_down = 0x1p-10;

    T rate, epsilon;
    Average<T> rho;
    bool divides_by_earlier;

    explicit Adadelta(const Numbers<Adadelta>& now) {
        rate = now.learning_rate * root_down;
        rho = now.average(now["rho"]);
        epsilon = now["epsilon"];
        divides_by_earlier = now["divides_by_earlier"] != 0;
        now.plain_if(!divides_by_earlier);
    }

    /// The two roots of the paper are taken as one, of a ratio, which then also gives the square of
    /// the update without its root's rounding error.
    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& mean_square, V& mean_square_update) const {
        const V earlier = mean_square, share = rho.share(g * g);
        mean_square = rho.of_squares(mean_square, share);
        V divisor = mean_square;
        if constexpr (!V::plain) divisor = divides_by_earlier ? earlier : mean_square;
        const V ratio = up * (mean_square_update + epsilon) / (divisor + epsilon);
        p -= sqrt(ratio) * (rate * g);
        mean_square_update =
            rho.with_share(mean_square_update, down * (ratio * at_most_finite(share)));
    }
};

}  // namespace instep::INSTEP_LEVEL
