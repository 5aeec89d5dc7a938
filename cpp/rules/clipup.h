#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// ClipUp: Toklu, Liskowski and Srivastava 2020, "ClipUp: a simple and powerful optimizer for
/// distribution-based policy evolution", algorithm 2: momentum on steps of one length, no faster
/// than `max_speed`. The norms are those of all arrays together.
template <class T>
struct ClipUp {
    static constexpr auto slots = state("velocity");
    static constexpr auto hyperparameters = names("momentum", "max_speed");
    static constexpr auto sums = names("g_squared", "v_squared", "product");
    static constexpr bool sums_over_all = true;

    double length, momentum, max_speed;
    Factor<T> rate;
    Decay<T> mu;

    explicit ClipUp(const Numbers<ClipUp>& now) {
        length = now.learning_rate;
        momentum = now["momentum"];
        max_speed = now["max_speed"] < 0 ? 2 * length : now["max_speed"];
        rate = 0;
        mu = momentum;
    }

    template <class Add, Number V>
    INSTEP_INLINE void measure(Add add, V, V g, V v) const {
        add("g_squared", g);
        add("v_squared", v);
        add("product", v, g);
    }
    void complete(const Totals<ClipUp>& totals) {
        const double steepness = sqrt(totals["g_squared"]);
        const double step = steepness == 0 ? 0 : length / steepness;
        // That of momentum * v + step * g, from those of v and g and of what they have in common.
        const double squared = momentum * momentum * totals["v_squared"] +
                               2 * momentum * step * totals["product"] +
                               step * step * totals["g_squared"];
        const double speed = sqrt(squared < 0 ? 0 : squared);
        const double share = speed > max_speed ? max_speed / speed : 1;
        rate = share * step;
        mu = share * momentum;
    }
    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& v) const {
        v = mu * v + rate * g;
        p -= v;
    }
};

}  // namespace instep::INSTEP_LEVEL
