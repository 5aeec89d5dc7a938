#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// RMSprop: Tieleman and Hinton 2012, lecture 6.5 of "Neural networks for machine learning";
/// centered and with epsilon inside the root as in Graves 2013, "Generating sequences with
/// recurrent neural networks", equations 38 to 41. Frameworks differ in where epsilon and the
/// learning rate stand; Optax adds bias correction and Nesterov's momentum; TensorFlow.js
/// subtracts epsilon from a centered mean square.
template <class T>
struct RMSprop {
    static constexpr auto slots =
        state(positive("mean_square"), optional(exact("mean_gradient")), optional("momentum"));
    static constexpr auto hyperparameters =
        names("rho", "momentum", "epsilon", "nesterov", "eps_in_sqrt", "bias_correction",
              "rate_after_momentum", "subtracts_epsilon");

    T inner_rate, outer_rate, epsilon_inside, epsilon_outside, correction, twice, lowest;
    Average<T> rho;
    Decay<T> mu;
    bool nesterov, subtracts_epsilon;

    explicit RMSprop(const Numbers<RMSprop>& now) {
        const double epsilon = now["epsilon"];
        const bool in_root = now["eps_in_sqrt"] != 0, corrects = now["bias_correction"] != 0;
        const bool rate_after = now["rate_after_momentum"] != 0;
        inner_rate = rate_after ? 1 : now.learning_rate;
        outer_rate = rate_after ? now.learning_rate : 1;
        rho = now.average(now["rho"]);
        mu = now["momentum"];
        epsilon_inside = in_root ? epsilon : 0;
        epsilon_outside = in_root ? 0 : epsilon;
        correction = corrects ? 1 / complement_of_power(now["rho"], now.step) : 1;
        twice = 2 * epsilon;
        nesterov = now["nesterov"] != 0;
        subtracts_epsilon = now["subtracts_epsilon"] != 0;
        lowest = subtracts_epsilon ? -epsilon : 0;
        now.plain_if(!rate_after && in_root && !corrects && !nesterov && !subtracts_epsilon);
    }

    template <Number V, class A, class B>
    INSTEP_INLINE void operator()(V& p, V g, V& v, A& a, B& b) const {
        v = rho.of_squares(v, rho.share(g * g));
        V variance = v;
        if constexpr (used<A>) a = rho(a, g);
        if constexpr (!V::plain) variance = correction * variance;
        if constexpr (used<A>) {
            V mean = a;
            if constexpr (!V::plain) mean = correction * mean;
            const V square = at_most_finite(mean * mean);  // an infinite v stays infinite
            V centered = variance - square;
            if constexpr (!V::plain) {
                if (subtracts_epsilon) {  // where that leaves no root, it is epsilon's
                    centered -= twice;
                    centered = select(V(lowest) < centered, centered, V(0));
                }
            }
            variance = max(centered, V(lowest));  // rounding
        }
        V root = sqrt(variance + epsilon_inside);
        if constexpr (!V::plain) root += epsilon_outside;
        V update = inner_rate * g / root;
        if constexpr (used<B>) {
            b = mu * b + update;
            if constexpr (!V::plain)
                update = nesterov ? mu * b + update : b;
            else
                update = b;
        }
        if constexpr (!V::plain) update = outer_rate * update;
        p -= update;
    }
};

}  // namespace instep::INSTEP_LEVEL
