#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// SM3: Anil et al. 2019, "Memory-efficient adaptive optimization", SM3-II, whose sets are the
/// slices of the array along each axis.
template <class T>
struct SM3 {
    static constexpr auto slots = state(optional("momentum"), divisible(positive("accumulator_0")));
    static constexpr auto hyperparameters = names("momentum", "epsilon");

    T learning_rate, epsilon;
    Average<T> momentum;

    explicit SM3(const Numbers<SM3>& now) {
        learning_rate = now.learning_rate;
        epsilon = now["epsilon"];
        if (now["momentum"] != 0) momentum = now.average(now["momentum"]);
    }

    static constexpr Folded folded = Folded::largest;
    template <Number V>
    static INSTEP_INLINE V combined(V a, V b) {
        return lesser(a, b);
    }
    template <Number V>
    static INSTEP_INLINE V told(V g, V least) {
        return least + g * g;
    }
    double renewed(double, double largest) const { return largest; }

    template <Number V, class M, class W>
    INSTEP_INLINE void operator()(V& p, V g, M& m, W& accumulator) const {
        const V a = accumulator + g * g;
        if constexpr (whole<W>) accumulator = a;
        V u = select(a < smallest<T>, V(0), g / sqrt(a + epsilon));
        if constexpr (used<M>) u = m = momentum(m, u);
        p -= learning_rate * u;
    }
};

}  // namespace instep::INSTEP_LEVEL
