// How each format is read into a register and written from one.
#pragma once

#include "engine/formats.h"
#include "kernels/vector.h"

namespace instep::INSTEP_LEVEL {

/// As many numbers of type T as V has.
template <class T, class V>
struct Alike {
    static constexpr std::size_t lanes = sizeof(V) / sizeof(V{}[0]);
    typedef T type __attribute__((vector_size(lanes * sizeof(T))));
};

/// IEEE 754's half precision.
struct Float16 {
    std::uint16_t bits;

    /// Of whole registers, or parts of one: exact, whatever the floating-point mode.
    template <class V>
    static INSTEP_INLINE V read(const Float16* from) {
        using Words = typename Alike<std::uint32_t, V>::type;
        using Floats = typename Alike<float, V>::type;
        typename Alike<std::uint16_t, V>::type half;
        __builtin_memcpy(&half, from, sizeof half);
#if defined(__AVX512F__)
        if constexpr (sizeof half == 32)
            return __builtin_convertvector((Floats)_mm512_maskz_cvtph_ps(0xffff, (__m256i)half), V);
#endif
#if defined(__F16C__)
        if constexpr (sizeof half == 8)
            return __builtin_convertvector(
                (Floats)_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))), V);
        if constexpr (sizeof half == 16)
            return __builtin_convertvector((Floats)_mm256_cvtph_ps((__m128i)half), V);
#endif
        // The exponent's bias is 15 here, 127 in float32; without one a number is a multiple of
        // 2^-24, which a difference of two normal ones gives.
        constexpr std::uint32_t one = 1u << 23, bias = (127 - 15) * one;
        const Words word = __builtin_convertvector(half, Words);
        const Words sign = (word & 0x8000) << 16, magnitude = (word & 0x7fff) << 13;
        const Floats small = (Floats)(magnitude + (bias + one)) - (Floats)(Words{} + (bias + one));
        const Words large = magnitude + bias, special = magnitude + 2 * bias;
        const Words finite = magnitude < one ? (Words)small : large;
        const Words result = sign | (magnitude < 31 * one ? finite : special);
        return __builtin_convertvector((Floats)result, V);
    }
};

/// As many numbers as V has, from where they are stored.
template <class V, class Stored>
INSTEP_INLINE V read(const Stored* from) {
    if constexpr (requires { Stored::template read<V>(from); }) {
        return Stored::template read<V>(from);
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
#define INSTEP_ROW(name, Stored, bytes, for_parameters)            \
    template <>                                                    \
    inline constexpr Format format_of_type<Stored> = Format::name; \
    static_assert(sizeof(Stored) == bytes);
INSTEP_FORMATS(INSTEP_ROW)
#undef INSTEP_ROW

/// Calls a function with the memory as elements of that format.
template <class Function>
INSTEP_INLINE auto as_stored(Format format, const void* memory, Function function) {
    switch (format) {
#define INSTEP_ROW(name, Stored, bytes, for_parameters) \
    case Format::name:                                  \
        return function(static_cast<const Stored*>(memory));
        INSTEP_FORMATS(INSTEP_ROW)
#undef INSTEP_ROW
    }
    __builtin_unreachable();
}

}  // namespace instep::INSTEP_LEVEL
