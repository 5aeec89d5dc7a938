#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// LAMB: You et al. 2020, "Large batch optimization for deep learning: training BERT in 76
/// minutes", algorithm 2: Adam's direction with decay, as long as the parameter.
template <class T>
struct Lamb {
    static constexpr auto slots = state("m", "v");
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "weight_decay");
    static constexpr int sums = 2;

    double learning_rate;
    T rate, scale, epsilon, epsilon_root, decay;
    Average<T> beta_1, beta_2;

    explicit Lamb(const StepNumbers& now) {
        const auto& [b1, b2, epsilon_, root, weight_decay] = now.hyperparameters<5>();
        const double c1 = complement_of_power(b1, now.step), c2 = complement_of_power(b2, now.step);
        learning_rate = now.learning_rate;
        rate = 0;
        scale = sqrt(c2) / c1;
        epsilon = epsilon_ * sqrt(c2);
        epsilon_root = root * c2;
        decay = weight_decay;
        beta_1 = now.average<T>(b1);
        beta_2 = now.average<T>(b2);
    }

    template <class Add, class V>
    INSTEP_INLINE void measure(Add add, V p, V g, V m, V v) const {
        const V u = direction(p, g, m, v);
        add(0, p, p);
        add(1, u, u);
    }
    void complete(const double* totals, double*) {
        rate = learning_rate *
               (totals[0] == 0 || totals[1] == 0 ? 1 : sqrt(totals[0]) / sqrt(totals[1]));
    }
    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& m, V& v) const {
        p -= rate * direction(p, g, m, v);
    }

private:
    template <class V>
    INSTEP_INLINE V direction(V p, V g, V& m, V& v) const {
        m = beta_1(m, g);
        v = beta_2.of_squares(v, beta_2.share(g * g));
        return scale * m / (sqrt(v + epsilon_root) + epsilon) + decay * p;
    }
};

}  // namespace instep::INSTEP_LEVEL
