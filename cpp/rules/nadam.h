#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Nadam: Dozat 2016, "Incorporating Nesterov momentum into Adam", with the momentum schedule of
/// its section 3, whose product so far is `u_product`; Optax has a constant one.
template <class T>
struct Nadam {
    static constexpr auto slots = state("m", positive("v"));
    static constexpr auto scalars = names("u_product");
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "momentum_decay", "constant_momentum");

    T from_m, from_g, epsilon, epsilon_root;
    Average<T> beta_1, beta_2;

    explicit Nadam(const Numbers<Nadam>& now) {
        const double b1 = now["beta_1"], b2 = now["beta_2"];
        const double decay = now["momentum_decay"];
        const bool is_constant = now["constant_momentum"] != 0;
        const auto momentum = [&](std::int64_t step) {
            const double power = static_cast<double>(step) * decay;
            return is_constant ? b1 : b1 * (1 - 0.5 * real_power(0.96, power));
        };
        const double u = momentum(now.step), u_next = momentum(now.step + 1);
        double& u_product = now.scalar("u_product");
        u_product *= u;
        const double c2 = complement_of_power(b2, now.step), rate = now.learning_rate * sqrt(c2);
        from_m = rate * u_next / (1 - u_product * u_next);
        from_g = rate * (1 - u) / (1 - u_product);
        epsilon = now["epsilon"] * sqrt(c2);
        epsilon_root = now["epsilon_root"] * c2;
        beta_1 = now.average(b1);
        beta_2 = now.average(b2);
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v) const {
        m = beta_1(m, g);
        v = beta_2.of_squares(v, beta_2.share(g * g));
        p -= (from_m * m + from_g * g) / (sqrt(v + epsilon_root) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
