// Numbers for rules to compute with: registers side by side.
#pragma once

#include "kernels/formats.h"
#include "kernels/square_root.h"
#include "kernels/vector.h"

namespace instep::INSTEP_LEVEL {

/// How many registers go through a rule together, so that their chains of dependent operations
/// overlap; there are twice as many of 512 bits. Every stream is loaded before one is stored.
inline constexpr int wide = vector_bytes == 64 ? 4 : 2;

/// Registers of T, to a rule a number: it has arithmetic and comparison, and a scalar converts to
/// it. `plain` tells averages what they may leave out.
template <class T, int registers, bool is_plain = false>
struct Pack {
    using V = Vector<T>;
    static constexpr std::size_t register_lanes = sizeof(V) / sizeof(T);
    static constexpr std::size_t lanes = registers * register_lanes;
    static constexpr bool plain = is_plain;

    V part[registers];

    Pack() = default;
    INSTEP_INLINE Pack(T x) {
        for (V& v : part) v = x - V{};
    }

    /// From numbers of any format.
    template <class Stored>
    static INSTEP_INLINE Pack load(const Stored* from) {
        Pack x;
        for (int k = 0; k < registers; ++k) x.part[k] = read<V>(from + k * register_lanes);
        return x;
    }
    INSTEP_INLINE void store(T* to) const {
        for (int k = 0; k < registers; ++k)
            instep::INSTEP_LEVEL::store(to + k * register_lanes, part[k]);
    }

    /// The operation on each register, or on those of a and b side by side.
    template <class Operation>
    friend INSTEP_INLINE Pack each(Pack a, Pack b, Operation operation) {
        for (int k = 0; k < registers; ++k) a.part[k] = operation(a.part[k], b.part[k]);
        return a;
    }
    friend INSTEP_INLINE Pack operator+(Pack a, Pack b) {
        return each(a, b, [](V x, V y) INSTEP_INLINE_LAMBDA { return x + y; });
    }
    friend INSTEP_INLINE Pack operator-(Pack a, Pack b) {
        return each(a, b, [](V x, V y) INSTEP_INLINE_LAMBDA { return x - y; });
    }
    friend INSTEP_INLINE Pack operator*(Pack a, Pack b) {
        return each(a, b, [](V x, V y) INSTEP_INLINE_LAMBDA { return x * y; });
    }
    friend INSTEP_INLINE Pack operator/(Pack a, Pack b) {
        return each(a, b, [](V x, V y) INSTEP_INLINE_LAMBDA { return x / y; });
    }
    INSTEP_INLINE Pack& operator+=(Pack b) { return *this = *this + b; }
    INSTEP_INLINE Pack& operator-=(Pack b) { return *this = *this - b; }

    struct Mask {
        decltype(V{} < V{}) part[registers];
    };
    friend INSTEP_INLINE Mask operator<(Pack a, Pack b) {
        Mask mask;
        for (int k = 0; k < registers; ++k) mask.part[k] = a.part[k] < b.part[k];
        return mask;
    }
    /// Where the condition holds the element of a, else that of b.
    friend INSTEP_INLINE Pack select(Mask condition, Pack a, Pack b) {
        for (int k = 0; k < registers; ++k) a.part[k] = condition.part[k] ? a.part[k] : b.part[k];
        return a;
    }
    friend INSTEP_INLINE Pack sqrt(Pack a) {
        constexpr int by_instruction = registers - fused_roots<T>(registers);
        for (int k = 0; k < by_instruction; ++k) a.part[k] = square_root<T>(a.part[k]);
        if constexpr (by_instruction < registers)
            for (int k = by_instruction; k < registers; ++k)
                a.part[k] = fused_square_root(a.part[k]);
        return a;
    }
    friend INSTEP_INLINE Pack real_power(Pack a, double exponent) {
        for (V& v : a.part)
            for (std::size_t k = 0; k < register_lanes; ++k)
                v[k] = static_cast<T>(
                    instep::INSTEP_LEVEL::real_power(static_cast<double>(v[k]), exponent));
        return a;
    }
    /// a where it is less than b, else b.
    friend INSTEP_INLINE Pack lesser(Pack a, Pack b) {
        for (int k = 0; k < registers; ++k)
            a.part[k] = instep::INSTEP_LEVEL::lesser<T>(a.part[k], b.part[k]);
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

}  // namespace instep::INSTEP_LEVEL
