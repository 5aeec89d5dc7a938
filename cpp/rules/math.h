// What rules need besides arithmetic: state slots, numbers of a step, decay rates, powers.
//
// Rules are templates over the dtype T and over the numbers V they compute with. They are compiled
// once per instruction-set level, in a namespace of the level's name, so that the linker cannot mix
// levels. No standard containers or algorithms: their instantiations would be shared.
#pragma once

#ifndef INSTEP_LEVEL
#error "rules are compiled by engine/level.cpp, with INSTEP_LEVEL set to the level's name"
#endif

#include <cstdint>

#include "rules/factors.h"

#if defined(__GNUC__)
#define INSTEP_INLINE inline __attribute__((always_inline))
#define INSTEP_INLINE_LAMBDA __attribute__((always_inline))
#define INSTEP_NOINLINE static __attribute__((noinline))
#else
#define INSTEP_INLINE inline
#define INSTEP_INLINE_LAMBDA
#define INSTEP_NOINLINE static
#endif

namespace instep::INSTEP_LEVEL {

/// A state array that a rule keeps for each parameter array.
struct Slot {
    const char* name;
    bool optional = false;
    constexpr Slot(const char* slot_name = "", bool is_optional = false)
        : name(slot_name), optional(is_optional) {}
};
constexpr Slot optional(const char* name) {
    return Slot(name, true);
}

template <class Item, int n>
struct List {
    static constexpr int count = n;
    Item item[n > 0 ? n : 1];
};
/// The slots of a rule, in the order of its arguments.
template <class... S>
constexpr List<Slot, sizeof...(S)> state(S... slots) {
    return {{Slot(slots)...}};
}
/// The names of a rule's hyperparameters, in the order in which it is told them.
template <class... S>
constexpr List<const char*, sizeof...(S)> names(S... strings) {
    return {{strings...}};
}

/// Stands in a rule's argument list for an optional slot that the configuration does not use.
struct Unused {};
template <class V>
inline constexpr bool used = true;
template <>
inline constexpr bool used<Unused> = false;

/// 1 - x**n by repeated multiplication: the same bits on every processor, unlike a library's pow,
/// and without the digits that a difference of two numbers near 1 would lose.
inline double complement_of_power(double x, std::int64_t n) {
    double result = 0;
    // While c = 1 - x**(2**k): 1 - (1 - result) * (1 - c) is result + c * (1 - result).
    for (double c = 1 - x; n > 0; n >>= 1, c *= 2 - c) {
        const double factor[] = {0, 1 - result};  // instead of a branch that is hard to predict
        result += c * factor[n & 1];
    }
    return result;
}

inline double sqrt(double x) {
    return __builtin_sqrt(x);
}
/// x**y for any y, from the C library.
inline double real_power(double x, double y) {
    return __builtin_pow(x, y);
}

template <class V>
INSTEP_INLINE V abs(V x) {
    return select(x < V(0), V(0) - x, x);
}
/// 1, -1, or what is neither positive nor negative itself.
template <class V>
INSTEP_INLINE V sign(V x) {
    return select(V(0) < x, V(1), select(x < V(0), V(-1), x));
}

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

/// What a rule is told once per array and step, in double precision.
struct StepNumbers {
    double learning_rate;
    std::int64_t step;  ///< 1 for the array's first update
    const double* own;  ///< the rule's hyperparameters, in the order of its `names`
    double* scalars;    ///< the array's own numbers: as they were, to become what they will be
    bool* plain;        ///< whether plain loops will do

    template <int count>
    const double (&hyperparameters() const)[count] {
        return *reinterpret_cast<const double (*)[count]>(own);
    }
    template <class T>
    Average<T> average(double beta) const {
        plain_if(Average<T>::is_long(beta));
        return Average<T>(beta);
    }
    /// Plain loops leave out the terms of unusual formulas (`if constexpr (!V::plain)`), which are
    /// zero, and factors, which are one, where the condition holds.
    void plain_if(bool condition) const { *plain &= condition; }
};

}  // namespace instep::INSTEP_LEVEL
