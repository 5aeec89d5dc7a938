// What rules are written in: state slots, the numbers of a step by name, arithmetic, powers.
//
// Rules are templates over the type T and over the numbers V they compute with. They are compiled
// once per instruction-set level, in a namespace of the level's name, so that the linker cannot mix
// levels. No standard containers or algorithms: their instantiations would be shared.
#pragma once

#include <cstdint>

#include "rules/averages.h"
#include "rules/level.h"
#include "rules/moment.h"

namespace instep::INSTEP_LEVEL {

// What a rule declares

/// A state array that a rule keeps for each parameter array.
struct Slot {
    const char* name;
    bool optional = false, divisible = false, positive = false, exact = false;
    constexpr Slot(const char* slot_name = "") : name(slot_name) {}
};
constexpr Slot optional(Slot slot) {
    slot.optional = true;
    return slot;
}
/// A slot whose numbers are not negative, and that the update divides by or by whose roots: in few
/// bits it has no sign, and does not become zero.
constexpr Slot positive(Slot slot) {
    slot.positive = true;
    return slot;
}
/// A slot of which small differences matter, so that it can't be kept in fewer bits.
constexpr Slot exact(Slot slot) {
    slot.exact = true;
    return slot;
}
/// A slot that may be kept in parts, each of which has some of the parameter's axes and goes for
/// all elements along the others. Before the update every element tells a number (`told`), parts
/// become of what they were and of what their elements told (`renewed`, of their `Folded`), and
/// the update sees for each element what its parts come to together (`combined`): of parts as they
/// were or, where the rule has `shown`, of what that makes of the new ones.
constexpr Slot divisible(Slot slot) {
    slot.divisible = true;
    return slot;
}
/// What becomes of numbers that the elements of a part tell: their mean, or the largest of them,
/// which are not negative.
enum class Folded { mean, largest };

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

void the_rule_has_no_such_name_in_its_list();  // no constant: a call of it does not compile

/// A name of a rule's list. One that is not in it does not compile.
template <const auto& list>
struct Name {
    int index;

    consteval Name(const char* name) : index(0) {
        while (!equal(list.item[index], name))
            if (++index == list.count) the_rule_has_no_such_name_in_its_list();
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
struct Numbers<Rule<T>> : Moment {
    double decay;           ///< of the parameter, before the rule: decoupled, times the rate
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
    double elements;  ///< how many those are that they are over
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
    a = select(a <= b, a, b);
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

/// Stands there for a slot in parts, which a rule can only read.
template <class V>
struct InParts : V {};
template <class V>
inline constexpr bool whole = true;
template <class V>
inline constexpr bool whole<InParts<V>> = false;

/// The smallest number that is not zero where subnormal ones are.
template <class T>
inline constexpr T smallest = static_cast<T>(sizeof(T) == 4 ? __FLT_MIN__ : __DBL_MIN__);

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

/// x**y for x of at least 1, of elementary operations alone: the same bits on every processor. Off
/// by a few units in the last place.
inline double portable_power(double x, double y) {
    int exponent;
    double m = __builtin_frexp(x, &exponent);
    if (m < 0.70710678118654752) m *= 2, --exponent;
    // ln(m) = 2 * atanh(s), |s| < 0.172, and e**r with |r| < 0.35: series to below 2**-60.
    const double s = (m - 1) / (m + 1);
    double logarithm = 0, power = 1;
    for (int n = 25; n > 0; n -= 2) logarithm = logarithm * (s * s) + 1.0 / n;
    constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
    const double low = exponent * ln2_low + 2 * s * logarithm;
    const double twos = __builtin_rint(y * (exponent * ln2_high + low) / ln2_high);
    if (twos < -1100) return 0;
    if (twos > 1100) return __builtin_huge_val();
    const double r = y * (exponent * ln2_high + low) - twos * ln2_high - twos * ln2_low;
    for (int n = 16; n > 0; --n) power = 1 + power * r / n;
    return __builtin_ldexp(power, static_cast<int>(twos));
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
