// Vectors of one instruction-set level, for rules to compute with.
#pragma once

#include <cstddef>

#include "rules/math.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace instep::INSTEP_LEVEL {

#if defined(__AVX512F__)
inline constexpr std::size_t vector_bytes = 64;
#elif defined(__AVX2__)
inline constexpr std::size_t vector_bytes = 32;
#else
inline constexpr std::size_t vector_bytes = 16;
#endif

template <class T>
struct VectorOf {
    typedef T type __attribute__((vector_size(vector_bytes)));
};
/// One register of T.
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
INSTEP_INLINE Vector<T> square_root(Vector<T> x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return (Vector<T>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);  // unmasked, it warns in GCC 12
    else
        return (Vector<T>)_mm512_maskz_sqrt_pd(0xff, (__m512d)x);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
        return (Vector<T>)_mm256_sqrt_ps((__m256)x);
    else
        return (Vector<T>)_mm256_sqrt_pd((__m256d)x);
#elif defined(__SSE2__)
    if constexpr (sizeof(T) == 4)
        return (Vector<T>)_mm_sqrt_ps((__m128)x);
    else
        return (Vector<T>)_mm_sqrt_pd((__m128d)x);
#elif defined(__aarch64__)
    if constexpr (sizeof(T) == 4)
        return (Vector<T>)vsqrtq_f32((float32x4_t)x);
    else
        return (Vector<T>)vsqrtq_f64((float64x2_t)x);
#else
    for (std::size_t k = 0; k < vector_bytes / sizeof(T); ++k)
        x[k] = sizeof(T) == 4 ? __builtin_sqrtf(x[k]) : __builtin_sqrt(x[k]);
    return x;
#endif
}

template <class V>
INSTEP_INLINE V load(const void* from) {
    V x;
    __builtin_memcpy(&x, from, sizeof x);
    return x;
}
template <class V>
INSTEP_INLINE void store(void* to, V x) {
    __builtin_memcpy(to, &x, sizeof x);
}

/// Two registers of T that go through a rule together, so that their chains of dependent
/// operations overlap and every stream is loaded before the first one is stored. To a rule it is a
/// number: it has arithmetic and comparison, and a scalar converts to it.
template <class T>
struct Pack {
    using V = Vector<T>;
    static constexpr std::size_t part_lanes = sizeof(V) / sizeof(T);
    static constexpr std::size_t lanes = 2 * part_lanes;

    V low, high;

    Pack() = default;
    INSTEP_INLINE Pack(V first, V second) : low(first), high(second) {}
    INSTEP_INLINE Pack(T x) : low(x - V{}), high(x - V{}) {}

    static INSTEP_INLINE Pack load(const T* from) {
        return {instep::INSTEP_LEVEL::load<V>(from),
                instep::INSTEP_LEVEL::load<V>(from + part_lanes)};
    }
    INSTEP_INLINE void store(T* to) const {
        instep::INSTEP_LEVEL::store(to, low);
        instep::INSTEP_LEVEL::store(to + part_lanes, high);
    }

    friend INSTEP_INLINE Pack operator+(Pack a, Pack b) { return {a.low + b.low, a.high + b.high}; }
    friend INSTEP_INLINE Pack operator-(Pack a, Pack b) { return {a.low - b.low, a.high - b.high}; }
    friend INSTEP_INLINE Pack operator*(Pack a, Pack b) { return {a.low * b.low, a.high * b.high}; }
    friend INSTEP_INLINE Pack operator/(Pack a, Pack b) { return {a.low / b.low, a.high / b.high}; }
    INSTEP_INLINE Pack& operator+=(Pack b) { return *this = *this + b; }
    INSTEP_INLINE Pack& operator-=(Pack b) { return *this = *this - b; }

    struct Mask {
        decltype(V{} < V{}) low, high;
    };
    friend INSTEP_INLINE Mask operator<(Pack a, Pack b) { return {a.low < b.low, a.high < b.high}; }
    /// Where the condition holds the element of a, else that of b.
    friend INSTEP_INLINE Pack select(Mask condition, Pack a, Pack b) {
        return {condition.low ? a.low : b.low, condition.high ? a.high : b.high};
    }
    friend INSTEP_INLINE Pack sqrt(Pack a) {
        return {square_root<T>(a.low), square_root<T>(a.high)};
    }
    /// The largest number, too, for what is not a number.
    friend INSTEP_INLINE Pack at_most_finite(Pack a) {
        const Pack largest = static_cast<T>(sizeof(T) == 4 ? __FLT_MAX__ : __DBL_MAX__);
        return select(a < largest, a, largest);
    }
    /// The larger one; a where either is not a number. Adding zero flushes a subnormal that would
    /// otherwise pass through untouched on some instruction sets.
    friend INSTEP_INLINE Pack max(Pack a, Pack b) { return select(a < b, b, a) + Pack(T(0)); }
};

}  // namespace instep::INSTEP_LEVEL
