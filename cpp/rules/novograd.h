#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// NovoGrad: Ginsburg et al. 2019, "Stochastic gradient methods with layer-wise adaptive moments",
/// algorithm 1: one second moment `v` for the whole array.
template <class T>
struct NovoGrad {
    static constexpr auto slots = state("m");
    static constexpr auto scalars = names("v");
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "weight_decay");
    static constexpr int sums = 1;

    double beta_2, epsilon, epsilon_root;
    Factor<T> scale;
    T learning_rate, decay;
    Decay<T> beta_1;
    bool first;

    explicit NovoGrad(const StepNumbers& now) {
        const auto& [b1, b2, epsilon_, root, weight_decay] = now.hyperparameters<5>();
        beta_2 = b2;
        epsilon = epsilon_;
        epsilon_root = root;
        learning_rate = now.learning_rate;
        scale = 0;
        decay = weight_decay;
        beta_1 = b1;
        first = now.step == 1;
    }

    template <class Add, class V>
    INSTEP_INLINE void measure(Add add, V, V g, V) const {
        add(0, g, g);
    }
    void complete(const double* totals, double* numbers) {
        double& v = numbers[0];
        v = first ? totals[0] : beta_2 * v + (1 - beta_2) * totals[0];
        scale = 1 / (sqrt(v + epsilon_root) + epsilon);
    }
    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& m) const {
        const V direction = scale * g + decay * p;
        m = first ? direction : beta_1 * m + direction;
        p -= learning_rate * m;
    }
};

}  // namespace instep::INSTEP_LEVEL
