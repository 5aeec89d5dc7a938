#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// LAMB: You et al. 2020, "Large batch optimization for deep learning: training BERT in 76
/// minutes", algorithm 2: Adam's direction with decay, as long as the parameter.
template <class T>
struct Lamb {
    static constexpr auto slots = state("m", positive("v"));
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "trust_ratio", "weight_decay");
    static constexpr auto sums = names("p_squared", "u_squared");

    double learning_rate;
    T rate, scale, epsilon, epsilon_root, decay;
    Average<T> beta_1, beta_2;
    bool has_ratio;

    explicit Lamb(const Numbers<Lamb>& now) {
        const double b1 = now["beta_1"], b2 = now["beta_2"];
        const double c1 = complement_of_power(b1, now.step), c2 = complement_of_power(b2, now.step);
        learning_rate = now.learning_rate;
        rate = 0;
        scale = sqrt(c2) / c1;
        epsilon = now["epsilon"] * sqrt(c2);
        epsilon_root = now["epsilon_root"] * c2;
        decay = now["weight_decay"];
        beta_1 = now.average(b1);
        beta_2 = now.average(b2);
        has_ratio = now["trust_ratio"] != 0;
    }

    template <class Add, Number V>
    INSTEP_INLINE void measure(Add add, V p, V g, V m, V v) const {
        const V u = direction(p, g, m, v);
        add("p_squared", p);
        add("u_squared", u);
    }
    void complete(const Totals<Lamb>& totals) {
        const double length = totals["p_squared"], step = totals["u_squared"];
        const bool is_one = !has_ratio || length == 0 || step == 0;
        rate = learning_rate * (is_one ? 1 : sqrt(length) / sqrt(step));
    }
    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v) const {
        p -= rate * direction(p, g, m, v);
    }

private:
    template <Number V>
    INSTEP_INLINE V direction(V p, V g, V& m, V& v) const {
        m = beta_1(m, g);
        v = beta_2.of_squares(v, beta_2.share(g * g));
        return scale * m / (sqrt(v + epsilon_root) + epsilon) + decay * p;
    }
};

}  // namespace instep::INSTEP_LEVEL
