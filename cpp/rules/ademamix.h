#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// AdEMAMix: Pagliardini, Ablin and Grangier 2024, "The AdEMAMix optimizer: better, faster, older",
/// algorithm 1 without its schedulers: Adam with a second, slow average of the gradient, which is
/// not bias-corrected.
template <class T>
struct AdEMAMix {
    static constexpr auto slots = state("m_1", "m_2", positive("v"));
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "beta_3", "alpha", "epsilon", "epsilon_root");

    T from_fast, from_slow, epsilon, epsilon_root;
    Average<T> beta_1, beta_2, beta_3;

    explicit AdEMAMix(const Numbers<AdEMAMix>& now) {
        const double b1 = now["beta_1"], b2 = now["beta_2"], alpha = now["alpha"];
        const double c1 = complement_of_power(b1, now.step), c2 = complement_of_power(b2, now.step);
        const double rate = now.learning_rate * sqrt(c2);
        from_fast = rate / c1;
        from_slow = rate * alpha;
        epsilon = now["epsilon"] * sqrt(c2);
        epsilon_root = now["epsilon_root"] * c2;
        beta_1 = now.average(b1);
        beta_2 = now.average(b2);
        beta_3 = now.average(now["beta_3"]);
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& fast, V& slow, V& v) const {
        fast = beta_1(fast, g);
        slow = beta_3(slow, g);
        v = beta_2.of_squares(v, beta_2.share(g * g));
        p -= (from_fast * fast + from_slow * slow) / (sqrt(v + epsilon_root) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
