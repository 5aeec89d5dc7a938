// One register of an instruction-set level.
#pragma once

#include <cstddef>
#include <cstdint>

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

/// a where it is more than b, else b.
INSTEP_INLINE Vector<float> greater(Vector<float> a, Vector<float> b) {
#if defined(__AVX512F__)
    return (Vector<float>)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vector<float>)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (Vector<float>)_mm_max_ps((__m128)a, (__m128)b);
#else
    return b < a ? a : b;
#endif
}

/// The numbers of the lower half of a register of 128 bits (0) or of the upper one (1) in double
/// precision.
template <int half>
INSTEP_INLINE Vector<double> widened(Vector<float> x) {
#if defined(__SSE2__) && !defined(__AVX2__)
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

// Registers of words of 32 bits, of 16 and of 8; as bits they convert to each other and to numbers.
using Floats = Vector<float>;
using Words = Vector<std::uint32_t>;
using Integers = Vector<std::int32_t>;
using Halves = Vector<std::uint16_t>;
using Bytes = Vector<std::uint8_t>;

#if defined(__AVX512F__)
/// One half of a register, and two halves together. Of the intrinsics GCC 12 warns.
template <int half>
INSTEP_INLINE __m256i half_of(__m512i x) {
    typedef long long All __attribute__((vector_size(64)));
    return (__m256i)__builtin_shufflevector((All)x, (All)x, 4 * half, 4 * half + 1, 4 * half + 2,
                                            4 * half + 3);
}
INSTEP_INLINE __m512i together(__m256i low, __m256i high) {
    return (__m512i)__builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}
#endif

/// The lower half (0) or the upper one (1) of a register, each element twice as wide. Compilers
/// make several instructions of what is one.
template <int half>
INSTEP_INLINE Words widened(Halves x) {
#if defined(__AVX512F__)
    return (Words)_mm512_maskz_cvtepu16_epi32(0xffff, half_of<half>((__m512i)x));
#elif defined(__AVX2__)
    return (Words)_mm256_cvtepu16_epi32(_mm256_extracti128_si256((__m256i)x, half));
#elif defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128();
    return (Words)(half ? _mm_unpackhi_epi16((__m128i)x, zero)
                        : _mm_unpacklo_epi16((__m128i)x, zero));
#elif defined(__aarch64__)
    return (Words)(half ? vmovl_high_u16((uint16x8_t)x) : vmovl_u16(vget_low_u16((uint16x8_t)x)));
#else
    Words result;
    constexpr int lanes = vector_bytes / sizeof(std::uint32_t);
    for (int k = 0; k < lanes; ++k) result[k] = x[half * lanes + k];
    return result;
#endif
}
template <int half>
INSTEP_INLINE Halves widened(Bytes x) {
#if defined(__AVX512F__)
    return (Halves)_mm512_maskz_cvtepu8_epi16(0xffffffff, half_of<half>((__m512i)x));
#elif defined(__AVX2__)
    return (Halves)_mm256_cvtepu8_epi16(_mm256_extracti128_si256((__m256i)x, half));
#elif defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128();
    return (Halves)(half ? _mm_unpackhi_epi8((__m128i)x, zero)
                         : _mm_unpacklo_epi8((__m128i)x, zero));
#elif defined(__aarch64__)
    return (Halves)(half ? vmovl_high_u8((uint8x16_t)x) : vmovl_u8(vget_low_u8((uint8x16_t)x)));
#else
    Halves result;
    constexpr int lanes = vector_bytes / sizeof(std::uint16_t);
    for (int k = 0; k < lanes; ++k) result[k] = x[half * lanes + k];
    return result;
#endif
}

/// Halves in memory, each twice as wide.
INSTEP_INLINE Words widened_from(const std::uint16_t* from) {
#if defined(__AVX512F__)
    return (Words)_mm512_maskz_cvtepu16_epi32(
        0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__AVX2__)
    return (Words)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif defined(__SSE2__)
    return (Words)_mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)),
                                     _mm_setzero_si128());
#elif defined(__aarch64__)
    return (Words)vmovl_u16(vld1_u16(from));
#else
    Words result;
    for (std::size_t k = 0; k < sizeof result / sizeof result[0]; ++k) result[k] = from[k];
    return result;
#endif
}

/// Numbers in memory, in double precision. Those in a register are shuffled first: on a Zen 3 in as
/// many cycles as they are converted.
INSTEP_INLINE Vector<double> widened_from(const float* from) {
#if defined(__AVX512F__)
    return (Vector<double>)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(from));
#elif defined(__AVX2__)
    return (Vector<double>)_mm256_cvtps_pd(_mm_loadu_ps(from));
#else
    typedef float Some __attribute__((vector_size(vector_bytes / 2)));
    Some numbers;
    __builtin_memcpy(&numbers, from, sizeof numbers);
    return __builtin_convertvector(numbers, Vector<double>);
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
/// Words of bytes that were packed from the halves of four registers, by registers.
INSTEP_INLINE __m256i in_order(__m256i packed) {
    return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
#endif

/// Two registers as one, of elements half as wide: their lower halves, which hold all there is.
INSTEP_INLINE Halves narrowed(Words low, Words high) {
#if defined(__AVX512F__)
    return (Halves)together(_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)low),
                            _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)high));
#elif defined(__AVX2__)
    const __m256i mixed = _mm256_packus_epi32((__m256i)low, (__m256i)high);
    return (Halves)_mm256_permute4x64_epi64(mixed, 0xd8);
#elif defined(__SSE2__)
    const auto extended = [](Words x) {
        return _mm_srai_epi32(_mm_slli_epi32((__m128i)x, 16), 16);
    };
    return (Halves)_mm_packs_epi32(extended(low), extended(high));
#elif defined(__aarch64__)
    return (Halves)vuzp1q_u16((uint16x8_t)low, (uint16x8_t)high);
#else
    Halves result;
    constexpr int lanes = vector_bytes / sizeof(std::uint32_t);
    for (int k = 0; k < lanes; ++k) result[k] = low[k], result[lanes + k] = high[k];
    return result;
#endif
}
INSTEP_INLINE Bytes narrowed(Halves low, Halves high) {
#if defined(__AVX512F__)
    return (Bytes)together(_mm512_maskz_cvtepi16_epi8(0xffffffff, (__m512i)low),
                           _mm512_maskz_cvtepi16_epi8(0xffffffff, (__m512i)high));
#elif defined(__AVX2__)
    const __m256i mixed = _mm256_packus_epi16((__m256i)low, (__m256i)high);
    return (Bytes)_mm256_permute4x64_epi64(mixed, 0xd8);
#elif defined(__SSE2__)
    return (Bytes)_mm_packus_epi16((__m128i)low, (__m128i)high);
#elif defined(__aarch64__)
    return (Bytes)vuzp1q_u8((uint8x16_t)low, (uint8x16_t)high);
#else
    Bytes result;
    constexpr int lanes = vector_bytes / sizeof(std::uint16_t);
    for (int k = 0; k < lanes; ++k) result[k] = low[k], result[lanes + k] = high[k];
    return result;
#endif
}

/// Four registers as one, likewise.
INSTEP_INLINE Bytes narrowed(const Words (&x)[4]) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i low = _mm256_packus_epi32((__m256i)x[0], (__m256i)x[1]);
    const __m256i high = _mm256_packus_epi32((__m256i)x[2], (__m256i)x[3]);
    return (Bytes)in_order(_mm256_packus_epi16(low, high));
#else
    return narrowed(narrowed(x[0], x[1]), narrowed(x[2], x[3]));
#endif
}
/// Of integers, which become the nearest ones that there are.
INSTEP_INLINE Bytes saturated(const Words (&x)[4]) {
#if defined(__AVX512F__)
    const auto quarter = [&](int k) INSTEP_INLINE_LAMBDA {
        return _mm512_maskz_cvtsepi32_epi8(0xffff, (__m512i)x[k]);
    };
    return (Bytes)together(_mm256_set_m128i(quarter(1), quarter(0)),
                           _mm256_set_m128i(quarter(3), quarter(2)));
#elif defined(__AVX2__)
    const __m256i low = _mm256_packs_epi32((__m256i)x[0], (__m256i)x[1]);
    const __m256i high = _mm256_packs_epi32((__m256i)x[2], (__m256i)x[3]);
    return (Bytes)in_order(_mm256_packs_epi16(low, high));
#elif defined(__SSE2__)
    return (Bytes)_mm_packs_epi16(_mm_packs_epi32((__m128i)x[0], (__m128i)x[1]),
                                  _mm_packs_epi32((__m128i)x[2], (__m128i)x[3]));
#elif defined(__aarch64__)
    const auto halves = [&](int k) INSTEP_INLINE_LAMBDA {
        return vcombine_s16(vqmovn_s32((int32x4_t)x[k]), vqmovn_s32((int32x4_t)x[k + 1]));
    };
    return (Bytes)vcombine_s8(vqmovn_s16(halves(0)), vqmovn_s16(halves(2)));
#else
    Bytes result;
    constexpr int lanes = vector_bytes / sizeof(std::uint32_t);
    for (int k = 0; k < 4 * lanes; ++k) {
        const auto number = static_cast<std::int32_t>(x[k / lanes][k % lanes]);
        result[k] = static_cast<std::uint8_t>(number < -128 ? -128 : number > 127 ? 127 : number);
    }
    return result;
#endif
}

/// Puts so many numbers together, one half of them with the other at a time: in an order that
/// nothing changes. They are overwritten.
template <std::size_t count, class T, class Join>
INSTEP_INLINE T joined(T* x, Join join) {
    for (std::size_t k = 0; k < count / 2; ++k) x[k] = join(x[k], x[k + count / 2]);
    if constexpr (count > 2) return joined<count / 2>(x, join);
    return x[0];
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
