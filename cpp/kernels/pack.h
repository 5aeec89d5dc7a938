// Numbers for rules to compute with: registers side by side.
#pragma once

#include <utility>

#include "kernels/formats.h"
#include "kernels/square_root.h"
#include "kernels/vector.h"

namespace instep::INSTEP_LEVEL {

/// How many registers go through a rule together, so that their chains of dependent operations
/// overlap; there are twice as many of 512 bits. Every stream is loaded before one is stored.
inline constexpr int wide = vector_bytes == 64 ? 4 : 2;

/// Registers of T, to a rule a number: it has arithmetic and comparison, and a scalar converts to
/// it. `plain` tells averages what they may leave out. What is done to each register is a fold over
/// their indices k: loops take compilers twice as long.
template <class T, int registers, bool is_plain = false,
          class = std::make_integer_sequence<int, registers>>
struct Pack;
template <class T, int registers, bool is_plain, int... k>
struct Pack<T, registers, is_plain, std::integer_sequence<int, k...>> {
    using V = Vector<T>;
    static constexpr std::size_t register_lanes = sizeof(V) / sizeof(T);
    static constexpr std::size_t lanes = registers * register_lanes;
    static constexpr bool plain = is_plain;

    V part[registers];

    Pack() = default;
    INSTEP_INLINE Pack(T x) { ((part[k] = x - V{}), ...); }

    /// From numbers of any format.
    template <class Stored>
    static INSTEP_INLINE Pack load(const Stored* from) {
        Pack x;
        ((x.part[k] = read<V>(from + k * register_lanes)), ...);
        return x;
    }
    INSTEP_INLINE void store(T* to) const {
        (instep::INSTEP_LEVEL::store(to + k * register_lanes, part[k]), ...);
    }

    friend INSTEP_INLINE Pack operator+(Pack a, Pack b) {
        ((a.part[k] += b.part[k]), ...);
        return a;
    }
    friend INSTEP_INLINE Pack operator-(Pack a, Pack b) {
        ((a.part[k] -= b.part[k]), ...);
        return a;
    }
    friend INSTEP_INLINE Pack operator*(Pack a, Pack b) {
        ((a.part[k] *= b.part[k]), ...);
        return a;
    }
    friend INSTEP_INLINE Pack operator/(Pack a, Pack b) {
        ((a.part[k] /= b.part[k]), ...);
        return a;
    }
    INSTEP_INLINE Pack& operator+=(Pack b) {
        ((part[k] += b.part[k]), ...);
        return *this;
    }
    INSTEP_INLINE Pack& operator-=(Pack b) {
        ((part[k] -= b.part[k]), ...);
        return *this;
    }

    static INSTEP_INLINE V register_power(V x, double exponent) {
        V result{};
        for (std::size_t lane = 0; lane < register_lanes; ++lane)
            result[lane] = static_cast<T>(
                instep::INSTEP_LEVEL::real_power(static_cast<double>(x[lane]), exponent));
        return result;
    }

    struct Mask {
        decltype(V{} < V{}) part[registers];
    };
    friend INSTEP_INLINE Mask operator<(Pack a, Pack b) {
        Mask mask;
        ((mask.part[k] = a.part[k] < b.part[k]), ...);
        return mask;
    }
    friend INSTEP_INLINE Mask operator<=(Pack a, Pack b) {
        Mask mask;
        ((mask.part[k] = a.part[k] <= b.part[k]), ...);
        return mask;
    }
    /// Where the condition holds the element of a, else that of b.
    friend INSTEP_INLINE Pack select(Mask condition, Pack a, Pack b) {
        ((a.part[k] = condition.part[k] ? a.part[k] : b.part[k]), ...);
        return a;
    }
    friend INSTEP_INLINE Pack sqrt(Pack a) {
        ((a.part[k] = square_root_in<T, k, registers>(a.part[k])), ...);
        return a;
    }
    friend INSTEP_INLINE Pack real_power(Pack a, double exponent) {
        ((a.part[k] = register_power(a.part[k], exponent)), ...);
        return a;
    }
    /// a where it is less than b, else b.
    friend INSTEP_INLINE Pack lesser(Pack a, Pack b) {
        ((a.part[k] = instep::INSTEP_LEVEL::lesser<T>(a.part[k], b.part[k])), ...);
        return a;
    }
    /// The largest number, too, for what is not a number.
    friend INSTEP_INLINE Pack at_most_finite(Pack a) {
        return lesser(a, static_cast<T>(sizeof(T) == 4 ? __FLT_MAX__ : __DBL_MAX__));
    }
    /// The larger one; a where either is not a number. Adding zero flushes a subnormal that would
    /// otherwise pass through untouched on some instruction sets.
    friend INSTEP_INLINE Pack max(Pack a, Pack b) { return select(a < b, b, a) + Pack(T(0)); }
};

/// As many numbers in double precision.
template <class T, int registers, bool is_plain>
INSTEP_INLINE auto widened(Pack<T, registers, is_plain> x) {
    Pack<double, registers * sizeof(double) / sizeof(T)> result;
    if constexpr (sizeof(T) == sizeof(double) || vector_bytes == 16) {
        constexpr int parts = sizeof(double) / sizeof(T);
        [&]<int... k>(std::integer_sequence<int, k...>) INSTEP_INLINE_LAMBDA {
            ((result.part[k] = widened<k % parts>(x.part[k / parts])), ...);
        }(std::make_integer_sequence<int, registers * parts>());
        return result;
    } else {
        T elements[x.lanes];
        x.store(elements);
        asm("" : "+m"(elements));  // it stays in memory
        return result.load(elements);
    }
}

}  // namespace instep::INSTEP_LEVEL
