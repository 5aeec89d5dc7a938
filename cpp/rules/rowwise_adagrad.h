#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Row-wise Adagrad, as recommenders' embedding tables have it (Mudigere et al. 2022, "Software-
/// hardware co-design for fast and scalable training of deep learning recommendation models"): one
/// sum for each row, of the means of its squares.
template <class T>
struct RowwiseAdagrad {
    static constexpr auto slots = state(divisible(positive("accumulator")));
    static constexpr auto hyperparameters = names("epsilon");

    T rate, epsilon;

    explicit RowwiseAdagrad(const Numbers<RowwiseAdagrad>& now)
        : rate(static_cast<T>(now.learning_rate)), epsilon(static_cast<T>(now["epsilon"])) {}

    static constexpr Folded folded = Folded::mean;
    template <Number V>
    static INSTEP_INLINE V combined(V row, V) {
        return row;
    }
    template <Number V>
    static INSTEP_INLINE V told(V g) {
        return g * g;
    }
    double renewed(double row, double mean) const { return row + mean; }
    /// As it is after the gradient.
    double shown(double row, double) const { return row; }
    double norm(double) const { return 1; }

    template <Number V, class W>
    INSTEP_INLINE void operator()(V& p, V g, W& accumulator) const {
        if constexpr (whole<W>) accumulator += g * g;
        const V sum = accumulator;
        p -= rate * g / (sqrt(sum) + epsilon);
    }
};

}  // namespace instep::INSTEP_LEVEL
