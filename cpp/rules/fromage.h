#pragma once
#include "rules/math.h"

namespace instep::INSTEP_LEVEL {

/// Fromage: Bernstein et al. 2020, "On the distance between two neural networks and the stability
/// of learning", algorithm 1; norms count as no less than `min_norm`.
template <class T>
struct Fromage {
    static constexpr auto slots = state();
    static constexpr auto hyperparameters = names("min_norm");
    static constexpr int sums = 2;

    double learning_rate, min_norm;
    T shrinkage;
    Factor<T> rate;

    explicit Fromage(const StepNumbers& now) {
        const auto& [least] = now.hyperparameters<1>();
        learning_rate = now.learning_rate;
        min_norm = least;
        shrinkage = 1 - 1 / sqrt(1 + learning_rate * learning_rate);
        rate = 0;
    }

    template <class Add, class V>
    INSTEP_INLINE void measure(Add add, V p, V g) const {
        add(0, p, p);
        add(1, g, g);
    }
    void complete(const double* totals, double*) {
        const double length = at_least(sqrt(totals[0])), steepness = at_least(sqrt(totals[1]));
        const double ratio = length == 0 || steepness == 0 ? 1 : length / steepness;
        rate = learning_rate / sqrt(1 + learning_rate * learning_rate) * ratio;
    }
    template <class V>
    INSTEP_INLINE void operator()(V& p, V g) const {
        p -= shrinkage * p + rate * g;
    }

private:
    double at_least(double norm) const { return norm <= min_norm ? min_norm : norm; }
};

}  // namespace instep::INSTEP_LEVEL
