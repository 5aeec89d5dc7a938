// One register of an instruction-set level.
#pragma once

#include <cstddef>

#include "rules/vocabulary.h"

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

/// a where it is less than b, else b: one instruction on x86, which compilers don't find.
template <class T>
INSTEP_INLINE Vector<T> lesser(Vector<T> a, Vector<T> b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return (Vector<T>)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
    else
        return (Vector<T>)_mm512_maskz_min_pd(0xff, (__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
        return (Vector<T>)_mm256_min_ps((__m256)a, (__m256)b);
    else
        return (Vector<T>)_mm256_min_pd((__m256d)a, (__m256d)b);
#elif defined(__SSE2__)
    if constexpr (sizeof(T) == 4)
        return (Vector<T>)_mm_min_ps((__m128)a, (__m128)b);
    else
        return (Vector<T>)_mm_min_pd((__m128d)a, (__m128d)b);
#else
    return a < b ? a : b;
#endif
}

/// The numbers of the lower half of a register (0) or of the upper one (1) in double precision:
/// conversions that compilers make of half as many each.
template <int half>
INSTEP_INLINE Vector<double> widened(Vector<float> x) {
#if defined(__AVX512F__)
    const __m512d bits = _mm512_castps_pd((__m512)x);
    return (Vector<double>)_mm512_maskz_cvtps_pd(
        0xff, _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, bits, half)));
#elif defined(__AVX2__)
    return (Vector<double>)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)x, half));
#elif defined(__SSE2__)
    return (Vector<double>)_mm_cvtps_pd(half ? _mm_movehl_ps((__m128)x, (__m128)x) : (__m128)x);
#elif defined(__aarch64__)
    return (Vector<double>)(half ? vcvt_high_f64_f32((float32x4_t)x)
                                 : vcvt_f64_f32(vget_low_f32((float32x4_t)x)));
#else
    Vector<double> result;
    constexpr std::size_t lanes = vector_bytes / sizeof(double);
    for (std::size_t k = 0; k < lanes; ++k) result[k] = x[half * lanes + k];
    return result;
#endif
}
template <int half>
INSTEP_INLINE Vector<double> widened(Vector<double> x) {
    return x;
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

}  // namespace instep::INSTEP_LEVEL
