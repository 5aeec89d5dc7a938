#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Fromage: Bernstein et al. 2020, "On the distance between two neural networks and the stability
/// of learning", algorithm 1; norms count as no less than `min_norm`.
template <class T>
struct Fromage {
    static constexpr auto slots = state();
    static constexpr auto hyperparameters = names("min_norm");
    static constexpr auto sums = names("p_squared", "g_squared");

    double learning_rate, min_norm;
    T shrinkage;
    Factor<T> rate;

    explicit Fromage(const Numbers<Fromage>& now) {
        learning_rate = now.learning_rate;
        min_norm = now["min_norm"];
        shrinkage = 1 - 1 / sqrt(1 + learning_rate * learning_rate);
        rate = 0;
    }

    template <class Add, Number V>
    INSTEP_INLINE void measure(Add add, V p, V g) const {
        add("p_squared", p);
        add("g_squared", g);
    }
    void complete(const Totals<Fromage>& totals) {
        const double length = at_least(sqrt(totals["p_squared"]));
        const double steepness = at_least(sqrt(totals["g_squared"]));
        const double ratio = length == 0 || steepness == 0 ? 1 : length / steepness;
        rate = learning_rate / sqrt(1 + learning_rate * learning_rate) * ratio;
    }
    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g) const {
        p -= shrinkage * p + rate * g;
    }

private:
    double at_least(double norm) const { return norm <= min_norm ? min_norm : norm; }
};

}  // namespace instep::INSTEP_LEVEL
