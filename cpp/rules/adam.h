#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Adam: Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1, with both
/// bias corrections moved into two scalars (end of section 2):
///     m_hat / (sqrt(v_hat) + epsilon) = sqrt(c2) / c1 * m / (sqrt(v) + epsilon * sqrt(c2)).
/// Keras leaves epsilon as it is there ("epsilon hat" in the paper). With v_max, AMSGrad: Reddi,
/// Kale and Kumar 2018, "On the convergence of Adam and beyond", algorithm 2, bias-corrected;
/// Optax keeps the maximum of what is corrected.
template <class T>
struct Adam {
    static constexpr auto slots = state("m", positive("v"), optional(positive("v_max")));
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "epsilon_hat", "maximum_of_corrected");

    T rate, epsilon, epsilon_root, correction, back;
    Average<T> beta_1, beta_2;

    explicit Adam(const Numbers<Adam>& now) {
        const double b1 = now["beta_1"], b2 = now["beta_2"];
        const double c1 = complement_of_power(b1, now.step), c2 = complement_of_power(b2, now.step);
        rate = now.learning_rate * sqrt(c2) / c1;
        const bool of_corrected = now["maximum_of_corrected"] != 0;
        epsilon = now["epsilon"] * (now["epsilon_hat"] ? 1 : sqrt(c2));
        epsilon_root = now["epsilon_root"] * c2;
        correction = of_corrected ? 1 / c2 : 1;
        back = of_corrected ? c2 : 1;
        beta_1 = now.average(b1);
        beta_2 = now.average(b2);
        now.plain_if(now["epsilon_root"] == 0 && !of_corrected);
    }

    template <Number V, class M>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v, M& v_max) const {
        m = beta_1(m, g);
        v = beta_2.of_squares(v, beta_2.share(g * g));
        V largest = v;
        if constexpr (V::plain) {
            if constexpr (used<M>) largest = v_max = max(v_max, v);
        } else {
            if constexpr (used<M>) {
                v_max = max(v_max, correction * v);
                largest = back * v_max;
            }
            largest += epsilon_root;
        }
        p -= rate * m / (sqrt(largest) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
