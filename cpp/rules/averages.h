// Averages, decay rates and factors, which keep the digits that a rounded rate would lose.
#pragma once

#include "rules/factors.h"
#include "rules/level.h"

namespace instep::INSTEP_LEVEL {

/// rate * x, kept as a rounded product and the small rest that rounding the rate to T left out.
template <class V>
struct Decayed {
    V high, low;
    friend INSTEP_INLINE V operator+(Decayed a, V b) { return a.high + (a.low + b); }
};

/// A rate such as momentum = 0.999 in `b = momentum * b + g`. Rounded to float32 alone, its
/// distance from 1 would be off by 1e-5, and every long sum with it. `high` is rounded down, so
/// that `low` is positive and an infinite b stays infinite.
template <class T>
struct Decay {
    T high, low;

    Decay() = default;
    Decay(double rate)
        : high(static_cast<T>(rate * (1 - 0x1p-23))),
          low(static_cast<T>(rate - static_cast<double>(high))) {}

    template <class V>
    friend INSTEP_INLINE Decayed<V> operator*(const Decay& rate, V x) {
        return {V(rate.high) * x, V(rate.low) * x};
    }
};

/// The exponential moving average `mean = beta * mean + (1 - beta) * x`, computed as
/// `keep * mean + (share - forget * mean)` with `share = (1 - beta) * x`. From beta = 0.5 on, where
/// its rounding would tell, keep is 1 and forget 1 - beta; below, keep is beta and forget 0.
template <class T>
class Average {
public:
    Average() = default;
    explicit Average(double beta)
        : keep(static_cast<T>(is_long(beta) ? 1 : beta)),
          forget(static_cast<T>(is_long(beta) ? 1 - beta : 0)),
          complement(static_cast<T>(1 - beta)) {}
    static bool is_long(double beta) { return beta >= 0.5; }

    template <class V>
    INSTEP_INLINE V operator()(V mean, V x) const {
        return with_share(mean, share(x));
    }
    template <class V>
    INSTEP_INLINE V share(V x) const {
        return complement * x;
    }
    template <class V>
    INSTEP_INLINE V with_share(V mean, V its_share) const {
        return kept(mean) + (its_share - forget * mean);
    }
    /// The mean of squares, from their share. One that has overflowed stays infinite.
    template <class V>
    INSTEP_INLINE V of_squares(V mean, V share_of_square) const {
        return kept(mean) + (share_of_square - at_most_finite(forget * mean));
    }

private:
    T keep, forget, complement;

    /// Plain loops run where all averages are long.
    template <class V>
    INSTEP_INLINE V kept(V mean) const {
        if constexpr (V::plain)
            return mean;
        else
            return keep * mean;
    }
};

/// A factor on gradients, as two where T does not hold it.
template <class T>
struct Factor {
    T first = 1, second = 1;

    Factor() = default;
    Factor(const Factors& both)
        : first(static_cast<T>(both.first)), second(static_cast<T>(both.second)) {}
    Factor(double x) : Factor(factors(x, sizeof(T) == 4)) {}

    template <class V>
    friend INSTEP_INLINE V operator*(const Factor& factor, V x) {
        return factor.second * (factor.first * x);
    }
};

}  // namespace instep::INSTEP_LEVEL
