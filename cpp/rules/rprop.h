#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Rprop: Riedmiller and Braun 1993, "A direct adaptive method for faster backpropagation
/// learning", in the form without backtracking of Igel and Huesken 2000, "Improving the Rprop
/// learning algorithm" (iRprop-). Optax applies each step one update late.
template <class T>
struct Rprop {
    static constexpr auto slots = state("previous_gradient", positive("step_size"));
    static constexpr auto hyperparameters =
        names("eta_minus", "eta_plus", "min_step_size", "max_step_size", "one_late");

    T learning_rate, eta_minus, eta_plus, least, most;
    bool first, one_late;

    explicit Rprop(const Numbers<Rprop>& now) {
        learning_rate = now.learning_rate;
        first = now.first;
        eta_minus = now["eta_minus"];
        eta_plus = now["eta_plus"];
        least = now["min_step_size"];
        most = now["max_step_size"];
        one_late = now["one_late"] != 0;
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& previous, V& step_size) const {
        if (first) step_size = learning_rate;
        const V agreement = sign(g) * sign(previous);
        const V factor =
            select(V(0) < agreement, V(eta_plus), select(agreement < V(0), V(eta_minus), V(1)));
        const V clipped = lesser(max(step_size * factor, V(least)), V(most));
        const V turned = select(agreement < V(0), V(0), V(1));
        if (one_late) {
            // What is kept is the signed step, which stands still where a sign is zero.
            step_size = select(V(0) < abs(agreement), clipped, step_size);
            p -= turned * previous;
            previous = turned * (step_size * sign(g));
        } else {
            step_size = clipped;
            previous = turned * g;
            p -= step_size * sign(previous);
        }
    }
};

}  // namespace instep::INSTEP_LEVEL
