#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// RAdam: Liu et al. 2020, "On the variance of the adaptive learning rate and beyond", algorithm 2.
/// PyTorch leaves epsilon out of the bias correction; in Optax the threshold itself is enough, and
/// there is Nesterov's momentum.
template <class T>
struct RAdam {
    static constexpr auto slots = state("m", positive("v"));
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "threshold", "nesterov", "epsilon_hat",
              "rectifies_at_threshold");

    T from_m, from_g, epsilon, epsilon_root;
    Average<T> beta_1, beta_2;
    bool rectifies;

    explicit RAdam(const Numbers<RAdam>& now) {
        const double b1 = now["beta_1"], b2 = now["beta_2"], threshold = now["threshold"];
        const double t = static_cast<double>(now.step);
        const double c1 = complement_of_power(b1, now.step), c2 = complement_of_power(b2, now.step);
        const double longest = 2 / (1 - b2) - 1;
        const double length = longest - 2 * t * (1 - c2) / c2;
        rectifies = length > threshold || (now["rectifies_at_threshold"] && length == threshold);
        const double rectification =
            sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length));
        const double rate = now.learning_rate * (rectifies ? rectification * sqrt(c2) : 1);
        const bool look_ahead = now["nesterov"] != 0;
        from_m = look_ahead ? rate * b1 / complement_of_power(b1, now.step + 1) : rate / c1;
        from_g = look_ahead ? rate * (1 - b1) / c1 : 0;
        epsilon = now["epsilon"] * (now["epsilon_hat"] ? 1 : sqrt(c2));
        epsilon_root = now["epsilon_root"] * c2;
        beta_1 = now.average(b1);
        beta_2 = now.average(b2);
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v) const {
        m = beta_1(m, g);
        v = beta_2.of_squares(v, beta_2.share(g * g));
        const V update = from_m * m + from_g * g;
        p -= rectifies ? update / (sqrt(v + epsilon_root) + epsilon) : update;
    }
};

}  // namespace instep::INSTEP_LEVEL
