#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// NovoGrad: Ginsburg et al. 2019, "Stochastic gradient methods with layer-wise adaptive moments",
/// algorithm 1: one second moment `v` for the whole array.
template <class T>
struct NovoGrad {
    static constexpr auto slots = state("m");
    static constexpr auto scalars = names("v");
    static constexpr auto hyperparameters =
        names("beta_1", "beta_2", "epsilon", "epsilon_root", "weight_decay");
    static constexpr auto sums = names("g_squared");

    double beta_2, epsilon, epsilon_root;
    Factor<T> scale;
    T learning_rate, decay;
    Decay<T> beta_1;
    bool first;

    explicit NovoGrad(const Numbers<NovoGrad>& now) {
        beta_2 = now["beta_2"];
        epsilon = now["epsilon"];
        epsilon_root = now["epsilon_root"];
        learning_rate = now.learning_rate;
        scale = 0;
        decay = now["weight_decay"];
        beta_1 = now["beta_1"];
        first = now.first;
    }

    template <class Add, Number V>
    INSTEP_INLINE void measure(Add add, V, V g, V) const {
        add("g_squared", g);
    }
    void complete(const Totals<NovoGrad>& totals) {
        const double square = totals["g_squared"];
        double& v = totals.scalar("v");
        v = first ? square : beta_2 * v + (1 - beta_2) * square;
        scale = 1 / (sqrt(v + epsilon_root) + epsilon);
    }
    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& m) const {
        const V direction = scale * g + decay * p;
        m = first ? direction : beta_1 * m + direction;
        p -= learning_rate * m;
    }
};

}  // namespace instep::INSTEP_LEVEL
