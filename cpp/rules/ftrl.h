#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// FTRL-Proximal: McMahan et al. 2013, "Ad click prediction: a view from the trenches",
/// algorithm 1, with Keras's names: its power of the accumulator instead of the root, penalties on
/// the whole square (twice the paper's lambda 2), and shrinkage of the gradient.
template <class T>
struct Ftrl {
    static constexpr auto slots = state(exact("accumulator"), exact("linear"));
    static constexpr auto hyperparameters =
        names("learning_rate_power", "l1_regularization_strength", "l2_regularization_strength",
              "l2_shrinkage_regularization_strength", "beta");

    double exponent;
    T one_over_rate, l1, minus_l1, constant, shrinkage;
    bool is_root, rests;

    explicit Ftrl(const Numbers<Ftrl>& now) {
        exponent = -now["learning_rate_power"];
        is_root = exponent == 0.5;
        rests = now.learning_rate == 0;
        one_over_rate = 1 / now.learning_rate;
        l1 = now["l1_regularization_strength"];
        minus_l1 = -l1;
        constant = 2 * now["l2_regularization_strength"] + now["beta"] / now.learning_rate;
        shrinkage = 2 * now["l2_shrinkage_regularization_strength"];
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& accumulator, V& linear) const {
        if (rests) return;  // the formula divides by the rate
        const V sum = accumulator + g * g;
        const V now = powered(sum), before = powered(accumulator);
        linear += g + shrinkage * p - (now - before) * one_over_rate * p;
        const V clipped = select(linear < minus_l1, V(minus_l1), lesser(linear, V(l1)));
        const V divisor = now * one_over_rate + constant;
        p = select(V(0) < divisor, (clipped - linear) / divisor, V(0) * divisor);
        accumulator = sum;
    }

private:
    template <Number V>
    INSTEP_INLINE V powered(V x) const {
        return is_root ? sqrt(x) : real_power(x, exponent);
    }
};

}  // namespace instep::INSTEP_LEVEL
