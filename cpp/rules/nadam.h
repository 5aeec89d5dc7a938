#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// Nadam: Dozat 2016, "Incorporating Nesterov momentum into Adam", with the momentum schedule of
/// its section 3, whose product so far is `u_product`; Optax has a constant one.
template <class T>
struct Nadam {
    static constexpr auto slots = state("m", "v");
    static constexpr auto scalars = names("u_product");
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "momentum_decay", "constant_momentum");

    T from_m, from_g, epsilon, epsilon_root;
    Average<T> beta_1, beta_2;

    explicit Nadam(const StepNumbers& now) {
        const auto& [b1, b2, epsilon_, root, decay, is_constant] = now.hyperparameters<6>();
        const auto momentum = [&, b = b1, d = decay, constant = is_constant](std::int64_t step) {
            return constant ? b : b * (1 - 0.5 * real_power(0.96, static_cast<double>(step) * d));
        };
        const double u = momentum(now.step), u_next = momentum(now.step + 1);
        double& u_product = now.scalars[0];
        u_product *= u;
        const double c2 = complement_of_power(b2, now.step), rate = now.learning_rate * sqrt(c2);
        from_m = rate * u_next / (1 - u_product * u_next);
        from_g = rate * (1 - u) / (1 - u_product);
        epsilon = epsilon_ * sqrt(c2);
        epsilon_root = root * c2;
        beta_1 = now.average<T>(b1);
        beta_2 = now.average<T>(b2);
    }

    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v) const {
        m = beta_1(m, g);
        v = beta_2.of_squares(v, beta_2.share(g * g));
        p -= (from_m * m + from_g * g) / (sqrt(v + epsilon_root) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
