// The square root of float32 without the divider: the same bits as the processor's instruction.
#pragma once

#include "kernels/vector.h"

namespace instep::INSTEP_LEVEL {

#if defined(__AVX512F__)
/// Unmasked, some of these intrinsics warn in GCC 12.
inline constexpr __mmask16 all_lanes = 0xffff;
INSTEP_INLINE Vector<float> reciprocal_root_estimate(Vector<float> x) {
    return (Vector<float>)_mm512_maskz_rsqrt14_ps(all_lanes, (__m512)x);
}
INSTEP_INLINE Vector<float> fused_multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
    return (Vector<float>)_mm512_maskz_fmadd_ps(all_lanes, (__m512)a, (__m512)b, (__m512)c);
}
INSTEP_INLINE bool all_equal(Vector<float> a, Vector<float> b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ) == all_lanes;
}
#elif defined(__FMA__)
INSTEP_INLINE Vector<float> reciprocal_root_estimate(Vector<float> x) {
    return (Vector<float>)_mm256_rsqrt_ps((__m256)x);
}
INSTEP_INLINE Vector<float> fused_multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
    return (Vector<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
INSTEP_INLINE bool all_equal(Vector<float> a, Vector<float> b) {
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_EQ_OQ)) == 0xff;
}
#endif

#if defined(__FMA__)
inline constexpr bool has_fused_root = true;

/// The correctly rounded square root from an estimate of 1/sqrt(x) with a relative error of at most
/// 1.5 * 2^-12, by multiplications and additions only.
///
/// A Newton step gives a root s right to 2^-21. Its residual r = x - s*s tells what is missing:
/// sqrt(x) = s + r/(2s), with a relative error below 2^-44. That decides how to round unless
/// sqrt(x) lies nearly half-way between two numbers. There r/(2s) is nearly half a unit in the last
/// place, and rounds differently when it is 2^-18 of itself smaller or larger: then the instruction
/// takes over, as it does for zeros, for what has no root, and below 2^-100, where r underflows.
INSTEP_INLINE Vector<float> square_root_from(Vector<float> estimate, Vector<float> x) {
    using V = Vector<float>;
    constexpr float tolerance = 0x1p-18f, least = 0x1p-100f;
    const V half = 0.5f * estimate, root = x * estimate;
    const V error = fused_multiply_add(-root, half, V{} + 0.5f);
    const V s = fused_multiply_add(root, error, root), r = fused_multiply_add(-s, s, x);
    const V low = fused_multiply_add(r, fused_multiply_add(half, error - tolerance, half), s);
    const V high = fused_multiply_add(r, fused_multiply_add(half, error + tolerance, half), s);
    const V large_enough = x < least ? V{} - 1.0f : high;  // differs from low, which is positive
    return __builtin_expect(all_equal(low, large_enough), 1) ? low : square_root<float>(x);
}

INSTEP_INLINE Vector<float> fused_square_root(Vector<float> x) {
    return square_root_from(reciprocal_root_estimate(x), x);
}
#else
inline constexpr bool has_fused_root = false;
INSTEP_INLINE Vector<float> fused_square_root(Vector<float> x) {
    return square_root<float>(x);
}
#endif

/// Whether some square roots of T are worth taking without the divider, which the others and the
/// divisions keep busy. With 256-bit registers none: there are too few of them, and more operations
/// per element fill the reorder buffer before the divider is idle. Of four 512-bit ones the last
/// is, and the third depending on the processor.
#if defined(__AVX512F__)
template <class T>
inline constexpr bool spares_divider = sizeof(T) == 4;
#else
template <class T>
inline constexpr bool spares_divider = false;
#endif

/// Whether the third is: threads may look while another one chooses.
static bool half_of_roots = true;

template <class T>
INSTEP_INLINE void choose_square_roots(bool half) {
    if constexpr (spares_divider<T>)
        if (__atomic_load_n(&half_of_roots, __ATOMIC_RELAXED) != half)
            __atomic_store_n(&half_of_roots, half, __ATOMIC_RELAXED);
}

/// The square root in register k of so many.
template <class T, int k, int registers>
INSTEP_INLINE Vector<T> square_root_in(Vector<T> x) {
    if constexpr (spares_divider<T> && registers > 1 && k == registers - 1) {
        return fused_square_root(x);
    } else if constexpr (spares_divider<T> && registers == 4 && k == 2) {
        return __atomic_load_n(&half_of_roots, __ATOMIC_RELAXED) ? fused_square_root(x)
                                                                 : square_root<T>(x);
    } else {
        return square_root<T>(x);
    }
}

}  // namespace instep::INSTEP_LEVEL
