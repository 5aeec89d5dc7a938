// What rules are written in: state slots, the numbers of a step by name, arithmetic, powers.
//
// Rules are templates over the type T and over the numbers V they compute with. They are compiled
// once per instruction-set level, in a namespace of the level's name, so that the linker cannot mix
// levels. No standard containers or algorithms: their instantiations would be shared.
#pragma once

#include <cstdint>

#include "rules/averages.h"
#include "rules/level.h"

namespace instep::INSTEP_LEVEL {

// What a rule declares

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
/// Names of a rule's hyperparameters, scalars or sums.
template <class... S>
constexpr List<const char*, sizeof...(S)> names(S... strings) {
    return {{strings...}};
}

/// A name of a rule's list. One that is not in it does not compile.
template <const auto& list>
struct Name {
    int index;

    consteval Name(const char* name) : index(0) {
        while (!equal(list.item[index], name))
            if (++index == list.count) throw "the rule has no such name in its list";
    }

private:
    static consteval bool equal(const char* a, const char* b) {
        for (; *a && *a == *b; ++a, ++b) {
        }
        return *a == *b;
    }
};

/// What a rule is told once per array and step, in double precision.
template <class Rule>
struct Numbers;
template <template <class> class Rule, class T>
struct Numbers<Rule<T>> {
    double learning_rate;
    std::int64_t step;      ///< 1 for the array's first update
    const double* own;      ///< the rule's `hyperparameters`
    double* array_scalars;  ///< the rule's `scalars`
    bool* plain;            ///< whether plain loops will do

    template <class R = Rule<T>>
    double operator[](Name<R::hyperparameters> name) const {
        return own[name.index];
    }
    /// One of the array's own numbers: as it was, to become what it will be.
    template <class R = Rule<T>>
    double& scalar(Name<R::scalars> name) const {
        return array_scalars[name.index];
    }
    Average<T> average(double beta) const {
        plain_if(Average<T>::is_long(beta));
        return Average<T>(beta);
    }
    /// Plain loops leave out the terms of unusual formulas (`if constexpr (!V::plain)`), which are
    /// zero, and factors, which are one, where the condition holds.
    void plain_if(bool condition) const { *plain &= condition; }
};

/// What has become of the `sums` that a rule measures, and the array's own numbers.
template <class Rule>
struct Totals {
    const double* values;
    double* array_scalars;

    template <class R = Rule>
    double operator[](Name<R::sums> name) const {
        return values[name.index];
    }
    template <class R = Rule>
    double& scalar(Name<R::scalars> name) const {
        return array_scalars[name.index];
    }
};

// What a rule computes with

/// An array's elements, many at a time. A scalar of type T converts to them.
template <class V>
concept Number = requires(V a, V b, double exponent) {
    bool(V::plain);  ///< whether averages are long ones and the formula is the usual one
    a = a + b - a * b / b;
    a += b;
    a -= b;
    a = select(a < b, a, b);  ///< a where the condition holds, else b
    a = sqrt(a);
    a = real_power(a, exponent);  ///< from the C library
    a = max(a, b);                ///< a where either is not a number
    a = lesser(a, b);             ///< b where either is not a number
    a = at_most_finite(a);        ///< the largest number, too, for what is not a number
};

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
    // While c = 1 - x**(2**k): 1 - (1 - result) * (1 - c) is result + c * (1 - result). A product
    // with the bit of n takes the place of a branch that is hard to predict.
    for (double c = 1 - x; n > 0; n >>= 1, c *= 2 - c) {
        if (c == 1) return 1;
        result += c * static_cast<double>(n & 1) * (1 - result);
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

template <Number V>
INSTEP_INLINE V abs(V x) {
    return select(x < V(0), V(0) - x, x);
}
/// 1, -1, or what is neither positive nor negative itself.
template <Number V>
INSTEP_INLINE V sign(V x) {
    return select(V(0) < x, V(1), select(x < V(0), V(-1), x));
}

}  // namespace instep::INSTEP_LEVEL
