// How each format is read into a register and written from one.
#pragma once

#include <type_traits>

#include "engine/formats.h"
#include "kernels/vector.h"

namespace instep::INSTEP_LEVEL {

/// As many numbers of type T as V has.
template <class T, class V>
struct Alike {
    static constexpr std::size_t lanes = sizeof(V) / sizeof(V{}[0]);
    typedef T type __attribute__((vector_size(lanes * sizeof(T))));
};

inline constexpr std::uint32_t sign_bit = 0x80000000, infinity_bits = 0x7f800000;

/// The bits of a vector's numbers.
template <class V>
using WordsOf = typename Alike<std::uint32_t, V>::type;

/// The upper half of float32.
struct BFloat16 {
    std::uint16_t bits;

    template <class V>
    static INSTEP_INLINE V read(const BFloat16* from) {
        if constexpr (std::is_same_v<V, Floats>) return number(widened_from(&from->bits));
        typename Alike<std::uint16_t, V>::type half;
        __builtin_memcpy(&half, from, sizeof half);
        const WordsOf<V> word = __builtin_convertvector(half, WordsOf<V>) << 16;
        return __builtin_convertvector((typename Alike<float, V>::type)word, V);
    }
    static INSTEP_INLINE Floats number(Words half) { return (Floats)(half << 16); }

    /// The bits of the nearest number, of two the even one.
    template <class V>
    static INSTEP_INLINE WordsOf<V> nearest(V x) {
        const WordsOf<V> word = (WordsOf<V>)x;
        const auto is_number = (word & ~sign_bit) <= infinity_bits;
        return is_number ? (word + 0x7fff + (word >> 16 & 1)) >> 16 : (word >> 16 | 0x40);
    }
    /// Those of one of its two neighbours, the likelier the nearer it is: 16 random bits decide.
    static INSTEP_INLINE Words random(Floats x, Words random_bits) {
        const Words is_number = (Words)(x == x);  // of others no digit is carried
        return ((Words)x + (random_bits & is_number)) >> 16;
    }
};

/// IEEE 754's half precision.
struct Float16 {
    std::uint16_t bits;

    /// Of whole registers, or parts of one: exact, whatever the floating-point mode.
    template <class V>
    static INSTEP_INLINE V read(const Float16* from) {
        using Numbers = typename Alike<float, V>::type;
        typename Alike<std::uint16_t, V>::type half;
        __builtin_memcpy(&half, from, sizeof half);
#if defined(__AVX512F__)
        if constexpr (sizeof half == 32)
            return __builtin_convertvector((Numbers)_mm512_maskz_cvtph_ps(0xffff, (__m256i)half),
                                           V);
#endif
#if defined(__F16C__)
        if constexpr (sizeof half == 8)
            return __builtin_convertvector(
                (Numbers)_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))), V);
        if constexpr (sizeof half == 16)
            return __builtin_convertvector((Numbers)_mm256_cvtph_ps((__m128i)half), V);
#endif
        return __builtin_convertvector(
            converted<Numbers>(__builtin_convertvector(half, WordsOf<V>)), V);
    }
    /// The numbers of which the lower half (0) or the upper one (1) of a register holds the bits.
    template <int half>
    static INSTEP_INLINE Floats numbers(Halves x) {
#if defined(__AVX512F__)
        return (Floats)_mm512_maskz_cvtph_ps(0xffff, half_of<half>((__m512i)x));
#elif defined(__F16C__)
        return (Floats)_mm256_cvtph_ps(_mm256_extracti128_si256((__m256i)x, half));
#else
        return converted<Floats>(widened<half>(x));
#endif
    }

    /// The bits of the nearest number, of two the even one.
    template <class V>
    static INSTEP_INLINE WordsOf<V> nearest(V x) {
        using W = WordsOf<V>;
        const W word = (W)x, magnitude = word & ~sign_bit;
        // Below the least normal number, the sum with one half has the bits at its end.
        const V half = V{} + 0.5f;
        const W small = (W)((V)magnitude + half) - (W)half;
        const W shifted = magnitude - bias;
        const W large = (shifted + 0xfff + (shifted >> 13 & 1)) >> 13;
        W bits = magnitude < least_normal ? small : large;
        bits = magnitude < least_too_large ? bits : (W{} + 0x7c00);
        bits = magnitude > infinity_bits ? (W{} + 0x7e00) : bits;
        return bits | (word >> 16 & 0x8000);
    }
    /// Those of one of its two neighbours, the likelier the nearer it is: 16 random bits decide.
    /// Numbers that would be infinite when rounded to nearest are, and no others.
    static INSTEP_INLINE Words random(Floats x, Words random_bits) {
        const Words word = (Words)x, magnitude = word & ~sign_bit;
        const Words bits = truncated(magnitude_with(magnitude, random_bits));
        const Words number = magnitude < least_too_large ? bits : (Words{} + 0x7c00);
        return (magnitude > infinity_bits ? (Words{} + 0x7e00) : number) | (word >> 16 & 0x8000);
    }

private:
    /// A magnitude and a random part of the distance from one number to the next.
    static INSTEP_INLINE Floats magnitude_with(Words magnitude, Words random_bits) {
        // No more bits than are left out, so that the sum is exact.
        constexpr int digits = 10, left_out = 23 - digits;
        constexpr float unit = 1.0f / (1u << digits) / (1u << left_out), least = 0x1p-14f;
        const Floats part =
            __builtin_convertvector((Integers)(random_bits >> (16 - left_out)), Floats);
        Floats power = (Floats)(magnitude & infinity_bits);
        power = power < least ? Floats{} + least : power;
        return (Floats)magnitude + part * (power * unit);
    }
    /// The bits of the next number towards zero; where there is none, of the largest.
    static INSTEP_INLINE Words truncated(Floats x) {
        const Words word = (Words)x, magnitude = word & ~sign_bit, most = Words{} + 0x7bff;
        const Words small = (Words) __builtin_convertvector((Floats)magnitude * 0x1p24f, Integers);
        const Words bits = magnitude < least_normal ? small : (magnitude - bias) >> 13;
        return (bits < most ? bits : most) | (word >> 16 & 0x8000);
    }

    /// Of the exponent, in float32's bits.
    static constexpr std::uint32_t bias = (127 - 15) << 23, least_normal = (127 - 14) << 23;
    static constexpr std::uint32_t least_too_large = 0x477ff000;  // 65,520

    template <class V>
    static INSTEP_INLINE V converted(WordsOf<V> word) {
        // Without an exponent a number is a multiple of 2^-24, which a difference of two normal
        // ones gives.
        using W = WordsOf<V>;
        constexpr std::uint32_t one = 1u << 23;
        const W sign = (word & 0x8000) << 16, magnitude = (word & 0x7fff) << 13;
        const V small = (V)(magnitude + (bias + one)) - (V)(W{} + (bias + one));
        const W large = magnitude + bias, special = magnitude + 2 * bias;
        const W finite = magnitude < one ? (W)small : large;
        return (V)(sign | (magnitude < 31 * one ? finite : special));
    }
};

/// Numbers to where they are stored, each as the nearest that the format has.
template <class Stored, class V>
INSTEP_INLINE void write(Stored* to, V x) {
    if constexpr (std::is_arithmetic_v<Stored>) {
        const auto stored = __builtin_convertvector(x, typename Alike<Stored, V>::type);
        __builtin_memcpy(to, &stored, sizeof stored);
    } else {
        const auto bits =
            Stored::nearest(__builtin_convertvector(x, typename Alike<float, V>::type));
        const auto halves = __builtin_convertvector(bits, typename Alike<std::uint16_t, V>::type);
        __builtin_memcpy(to, &halves, sizeof halves);
    }
}
/// Two registers of them: their halves are packed together.
template <class Stored>
INSTEP_INLINE void write_two(Stored* to, Floats low, Floats high) {
    store(to, narrowed(Stored::nearest(low), Stored::nearest(high)));
}
/// One of them.
template <class Stored, class T>
INSTEP_INLINE void write_one(Stored* to, T x) {
    typedef T One __attribute__((vector_size(sizeof(T))));
    if constexpr (std::is_arithmetic_v<Stored>)
        *to = static_cast<Stored>(x);
    else
        write(to, One{x});
}

/// As many numbers as V has, from where they are stored.
template <class V, class Stored>
INSTEP_INLINE V read(const Stored* from) {
    if constexpr (requires { Stored::template read<V>(from); }) {
        return Stored::template read<V>(from);
    } else if constexpr (std::is_same_v<V, Vector<double>> && std::is_same_v<Stored, float>) {
        return widened_from(from);
    } else {
        typename Alike<Stored, V>::type stored;
        __builtin_memcpy(&stored, from, sizeof stored);
        return __builtin_convertvector(stored, V);
    }
}
/// One of them.
template <class T, class Stored>
INSTEP_INLINE T read_one(const Stored* from) {
    typedef T One __attribute__((vector_size(sizeof(T))));
    if constexpr (requires { Stored::template read<One>(from); })
        return read<One>(from)[0];
    else
        return static_cast<T>(*from);
}

/// The format of numbers that are stored as a type.
template <class Stored>
inline constexpr Format format_of_type = Format::float32;
#define INSTEP_ROW(name, Stored, bytes)                            \
    template <>                                                    \
    inline constexpr Format format_of_type<Stored> = Format::name; \
    static_assert(sizeof(Stored) == bytes);
INSTEP_FORMATS(INSTEP_ROW)
#undef INSTEP_ROW

/// Calls a function with the memory as elements of that format.
template <class Function>
INSTEP_INLINE auto as_stored(Format format, const void* memory, Function function) {
    switch (format) {
#define INSTEP_ROW(name, Stored, bytes) \
    case Format::name:                  \
        return function(static_cast<const Stored*>(memory));
        INSTEP_FORMATS(INSTEP_ROW)
#undef INSTEP_ROW
    }
    __builtin_unreachable();
}

}  // namespace instep::INSTEP_LEVEL
