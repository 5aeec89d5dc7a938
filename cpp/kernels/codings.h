// How each coding is read into a buffer and written from one: contiguous elements, a tile at most.
#pragma once

#include "engine/kernels.h"
#include "kernels/formats.h"
#include "kernels/vector.h"

namespace instep::INSTEP_LEVEL {

/// Calls work(i) for each so many elements, and for the last few `work_apart(i, count)`.
template <std::size_t batch, class Work, class WorkApart>
INSTEP_INLINE void in_batches(std::size_t count, Work work, WorkApart work_apart) {
    std::size_t i = 0;
    for (; i + batch <= count; i += batch) work(i);
    if (i < count) work_apart(i, count - i);
}

// Codings of single elements. Those of a batch are in two registers of numbers, and as what is
// stored in one.

/// A 16-bit format, rounded up or down at random.
template <class Format>
struct Stochastic {
    using Beside = std::uint16_t;
    static constexpr bool has_companion = false;

    static INSTEP_INLINE void read(const std::uint16_t* stored, const Beside*, float* to) {
        constexpr std::size_t lanes = sizeof(Floats) / sizeof(float);
        const auto* const from = reinterpret_cast<const Format*>(stored);
        store(to, Format::template read<Floats>(from));
        store(to + lanes, Format::template read<Floats>(from + lanes));
    }
    static INSTEP_INLINE void write(Floats low, Floats high, std::uint16_t* stored, Beside*,
                                    Halves random) {
        store(stored, narrowed(Format::random(low, widened<0>(random)),
                               Format::random(high, widened<1>(random))));
    }
};

/// bfloat16 rounded to nearest, away from zero where two are, and beside it the lower half of the
/// float32 that it stands for.
struct Remainder {
    using Beside = std::uint16_t;
    static constexpr bool has_companion = true;

    static INSTEP_INLINE Floats number(Words upper, Words lower) {
        const Floats whole = (Floats)((upper - (lower >> 15)) << 16 | lower);
        // Somebody may have written zero or infinity, beside which others' lower halves are NaN.
        return whole == whole ? whole : (Floats)(upper << 16);
    }
    static INSTEP_INLINE Words upper(Floats x) {
        const Words is_number = (Words)(x == x);  // of others no digit is carried
        return ((Words)x + (is_number & 0x8000)) >> 16;
    }
    static INSTEP_INLINE Words lower(Floats x) { return (Words)x & 0xffff; }

    static INSTEP_INLINE void read(const std::uint16_t* stored, const Beside* beside, float* to) {
        constexpr std::size_t lanes = sizeof(Floats) / sizeof(float);
        store(to, number(widened_from(stored), widened_from(beside)));
        store(to + lanes, number(widened_from(stored + lanes), widened_from(beside + lanes)));
    }
    static INSTEP_INLINE void write(Floats low, Floats high, std::uint16_t* stored, Beside* beside,
                                    Halves) {
        store(stored, narrowed(upper(low), upper(high)));
        store(beside, narrowed(lower(low), lower(high)));
    }
};

/// float16 rounded to nearest, and beside it the float32 that it stands for, unless somebody has
/// written another number.
struct Master {
    using Beside = float;
    static constexpr bool has_companion = true;

    static INSTEP_INLINE void read(const std::uint16_t* stored, const Beside* beside, float* to) {
        constexpr std::size_t lanes = sizeof(Floats) / sizeof(float);
        const Halves bits = load<Halves>(stored);
        const auto chosen = [](Words given, Floats number, Floats master) INSTEP_INLINE_LAMBDA {
            return Float16::nearest(master) == given ? master : number;
        };
        store(to, chosen(widened<0>(bits), Float16::numbers<0>(bits), load<Floats>(beside)));
        store(to + lanes,
              chosen(widened<1>(bits), Float16::numbers<1>(bits), load<Floats>(beside + lanes)));
    }
    static INSTEP_INLINE void write(Floats low, Floats high, std::uint16_t* stored, Beside* beside,
                                    Halves) {
        store(stored, narrowed(Float16::nearest(low), Float16::nearest(high)));
        store(beside, low);
        store(beside + sizeof(Floats) / sizeof(float), high);
    }
};

inline constexpr std::size_t batch_of_halves = sizeof(Halves) / sizeof(std::uint16_t);

/// Reads elements of such a coding.
template <class Coded>
static void decode_each(const void* stored, const void* companion, std::size_t count, float* to) {
    const auto* const from = static_cast<const std::uint16_t*>(stored);
    const auto* const beside = static_cast<const typename Coded::Beside*>(companion);
    in_batches<batch_of_halves>(
        count,
        [&](std::size_t i) INSTEP_INLINE_LAMBDA { Coded::read(from + i, beside + i, to + i); },
        [&](std::size_t i, std::size_t rest) INSTEP_INLINE_LAMBDA {
            std::uint16_t elements[batch_of_halves] = {};
            typename Coded::Beside others[batch_of_halves] = {};
            __builtin_memcpy(elements, from + i, rest * sizeof elements[0]);
            if constexpr (Coded::has_companion)
                __builtin_memcpy(others, beside + i, rest * sizeof others[0]);
            Coded::read(elements, others, to + i);
        });
}

/// Writes them.
template <class Coded>
static void encode_each(const float* from, void* stored, void* companion, std::size_t count,
                        const std::uint16_t* random_bits) {
    constexpr std::size_t lanes = sizeof(Floats) / sizeof(float);
    auto* const to = static_cast<std::uint16_t*>(stored);
    auto* const beside = static_cast<typename Coded::Beside*>(companion);
    const auto write = [&](std::size_t i, std::uint16_t* elements, typename Coded::Beside* others)
                           INSTEP_INLINE_LAMBDA {
                               Coded::write(load<Floats>(from + i), load<Floats>(from + i + lanes),
                                            elements, others, load<Halves>(random_bits + i));
                           };
    in_batches<batch_of_halves>(
        count, [&](std::size_t i) INSTEP_INLINE_LAMBDA { write(i, to + i, beside + i); },
        [&](std::size_t i, std::size_t rest) INSTEP_INLINE_LAMBDA {
            std::uint16_t elements[batch_of_halves];
            typename Coded::Beside others[batch_of_halves];
            write(i, elements, others);
            __builtin_memcpy(to + i, elements, rest * sizeof elements[0]);
            if constexpr (Coded::has_companion)
                __builtin_memcpy(beside + i, others, rest * sizeof others[0]);
        });
}

// Codings of blocks: eight bits an element, and beside a block the power of two that its elements
// are multiples of. Both kinds are bits of float16, so that processors convert them.

/// The codes of magnitudes, of which 2^-14 is the least one with an exponent; 16 random bits decide
/// on roundings. A number is doubled, or the least one added to it: then the codes of those without
/// an exponent end where the others begin.
INSTEP_INLINE Words magnitude_codes(Floats x, Words random_bits) {
    constexpr std::uint32_t exponent = (127 - 14) << 23;
    const Words sum = (Words)(x + greater(x, Floats{} + 0x1p-14f));
    return (sum - exponent + (random_bits << 4)) >> 20;
}
/// All ones where a number is infinite or none.
INSTEP_INLINE Words special(Words x) {
    return (Words)((x & ~sign_bit) >= infinity_bits);
}

/// Sign, four bits of exponent and three of mantissa: what ml_dtypes calls float8_e4m3fn, times
/// 2^-8. Numbers of less than 2^-17 of the largest one's power of two become zero or that.
struct Float8 {
    /// The exponent of the scale, of float32 as that of the largest number: with it, that is from
    /// one half to one.
    static constexpr std::uint32_t scale_exponent(std::uint32_t largest) {
        return largest < 252 ? largest + 1 : 253;
    }
    static INSTEP_INLINE Halves as_float16(Halves code) {
        const Halves magnitude = code & 0x7f;
        return (magnitude == 0x7f ? (Halves{} + 0x7e00) : magnitude << 7) | (code & 0x80) << 8;
    }
    /// Codes of finite numbers, of which these are the bits, and those of them scaled.
    static INSTEP_INLINE Bytes codes(const Words (&numbers)[4], const Floats (&scaled)[4],
                                     const Words (&random_bits)[4]) {
        const auto code = [&](int k) INSTEP_INLINE_LAMBDA {
            return magnitude_codes((Floats)((Words)scaled[k] & ~sign_bit), random_bits[k]);
        };
        const Bytes magnitude = narrowed({code(0), code(1), code(2), code(3)});
        const Bytes finite = magnitude < 0x7e ? magnitude : (Bytes{} + 0x7e);
        return finite | (saturated(numbers) & 0x80);
    }
    /// Those of others: of what is none, none.
    static INSTEP_INLINE Words special_code(Words) { return Words{} + 0x7f; }
};

/// Five bits of exponent and three of mantissa, without a sign: the middle of float16. A positive
/// number never becomes zero: what is divided by its root would be out of all proportion.
struct PositiveFloat8 {
    /// With it, the largest number is from 2^14 to 2^15.
    static constexpr std::uint32_t scale_exponent(std::uint32_t largest) {
        return largest > 15 ? largest - 14 : 1;
    }
    static INSTEP_INLINE Halves as_float16(Halves code) { return code << 7; }
    static INSTEP_INLINE Bytes codes(const Words (&numbers)[4], const Floats (&scaled)[4],
                                     const Words (&random_bits)[4]) {
        const auto code = [&](int k) INSTEP_INLINE_LAMBDA {
            return magnitude_codes(scaled[k], random_bits[k]);
        };
        typedef std::int8_t Signed __attribute__((vector_size(sizeof(Bytes))));
        const Bytes is_positive = (Bytes)((Signed)saturated(numbers) > 0);
        const Bytes all = narrowed({code(0), code(1), code(2), code(3)});
        return (all - (Bytes)(all == 0)) & is_positive;
    }
    static INSTEP_INLINE Words special_code(Words number) {
        return number == infinity_bits ? (Words{} + 0xf8) : (Words{} + 0xff);
    }
};

inline constexpr std::size_t coded_block = 256;
inline constexpr std::size_t batch_of_bytes = sizeof(Bytes);
static_assert(tile_elements % coded_block == 0 && coded_block % batch_of_bytes == 0);

template <class Coded>
static void decode_blocks(const void* stored, const void* scales, std::size_t count, float* to) {
    constexpr std::size_t lanes = sizeof(Floats) / sizeof(float);
    const auto* const from = static_cast<const std::uint8_t*>(stored);
    const auto read = [&](const std::uint8_t* codes, std::size_t i) INSTEP_INLINE_LAMBDA {
        const float scale = static_cast<const float*>(scales)[i / coded_block];
        const auto read_half = [&](Halves its_codes, float* numbers) INSTEP_INLINE_LAMBDA {
            const Halves bits = Coded::as_float16(its_codes);
            store(numbers, Float16::numbers<0>(bits) * scale);
            store(numbers + lanes, Float16::numbers<1>(bits) * scale);
        };
        const Bytes bytes = load<Bytes>(codes);
        read_half(widened<0>(bytes), to + i);
        read_half(widened<1>(bytes), to + i + 2 * lanes);
    };
    in_batches<batch_of_bytes>(
        count, [&](std::size_t i) INSTEP_INLINE_LAMBDA { read(from + i, i); },
        [&](std::size_t i, std::size_t rest) INSTEP_INLINE_LAMBDA {
            std::uint8_t codes[batch_of_bytes] = {};
            __builtin_memcpy(codes, from + i, rest);
            read(codes, i);
        });
}

/// The bits of the largest magnitude, or of the largest finite one.
template <bool finite>
INSTEP_INLINE std::uint32_t largest_of(const float* numbers, std::size_t count) {
    constexpr std::size_t lanes = sizeof(Floats) / sizeof(float);
    Integers largest[2] = {};
    const auto see = [&](const float* at, int k) INSTEP_INLINE_LAMBDA {
        Integers magnitude = (Integers)(load<Words>(at) & ~sign_bit);
        if constexpr (finite) magnitude &= magnitude < static_cast<int>(infinity_bits);
        largest[k] = magnitude > largest[k] ? magnitude : largest[k];
    };
    in_batches<2 * lanes>(
        count,
        [&](std::size_t i) INSTEP_INLINE_LAMBDA {
            see(numbers + i, 0);
            see(numbers + i + lanes, 1);
        },
        [&](std::size_t i, std::size_t rest) INSTEP_INLINE_LAMBDA {
            float few[2 * lanes] = {};
            __builtin_memcpy(few, numbers + i, rest * sizeof few[0]);
            see(few, 0);
            see(few + lanes, 1);
        });
    const Integers either = largest[0] > largest[1] ? largest[0] : largest[1];
    std::int32_t of_lanes[lanes];
    store(of_lanes, either);
    const auto larger = [](std::int32_t a, std::int32_t b) { return a > b ? a : b; };
    return static_cast<std::uint32_t>(joined<lanes>(of_lanes, larger));
}

/// Writes a block whose numbers are all finite, or one that may hold others.
template <class Coded, bool finite>
INSTEP_INLINE void encode_block(const float* from, std::uint8_t* to, float inverse,
                                std::size_t count, const std::uint16_t* random_bits) {
    const auto codes_of = [&]<std::size_t... k>(std::size_t i,
                                                std::index_sequence<k...>) INSTEP_INLINE_LAMBDA {
        constexpr std::size_t lanes = sizeof(Floats) / sizeof(float);
        const Floats numbers[] = {load<Floats>(from + i + k * lanes)...};
        const Words bits[] = {(Words)numbers[k]...};
        const Bytes codes = Coded::codes(bits, {numbers[k] * inverse...},
                                         {widened_from(random_bits + i + k * lanes)...});
        if constexpr (finite) return codes;
        const Bytes others = narrowed({Coded::special_code(bits[k])...});
        const Bytes are_others = narrowed({(special(bits[k]) & 0xff)...});
        return (codes & ~are_others) | (others & are_others);
    };
    const auto write = [&](std::size_t i, std::uint8_t* codes) INSTEP_INLINE_LAMBDA {
        store(codes, codes_of(i, std::make_index_sequence<4>()));
    };
    in_batches<batch_of_bytes>(
        count, [&](std::size_t i) INSTEP_INLINE_LAMBDA { write(i, to + i); },
        [&](std::size_t i, std::size_t rest) INSTEP_INLINE_LAMBDA {
            std::uint8_t codes[batch_of_bytes];
            write(i, codes);
            __builtin_memcpy(to + i, codes, rest);
        });
}

template <class Coded>
static void encode_blocks(const float* from, void* stored, void* scales, std::size_t count,
                          const std::uint16_t* random_bits) {
    // Of all blocks before the first one is written: a block's has to be waited for.
    std::uint32_t largest[tile_elements / coded_block];
    const auto for_each_block = [&](auto visit) INSTEP_INLINE_LAMBDA {
        for (std::size_t start = 0; start < count; start += coded_block) {
            const std::size_t rest = count - start;
            visit(start, rest < coded_block ? rest : coded_block, largest[start / coded_block]);
        }
    };
    for_each_block([&](std::size_t start, std::size_t length, std::uint32_t& its)
                       INSTEP_INLINE_LAMBDA { its = largest_of<false>(from + start, length); });
    for_each_block([&](std::size_t start, std::size_t length,
                       std::uint32_t its) INSTEP_INLINE_LAMBDA {
        const bool is_finite = its < infinity_bits;
        if (!is_finite) its = largest_of<true>(from + start, length);
        const std::uint32_t scale = Coded::scale_exponent(its >> 23);
        static_cast<float*>(scales)[start / coded_block] = __builtin_bit_cast(float, scale << 23);
        const float inverse = __builtin_bit_cast(float, (254 - scale) << 23);
        auto* const to = static_cast<std::uint8_t*>(stored) + start;
        if (is_finite)
            encode_block<Coded, true>(from + start, to, inverse, length, random_bits + start);
        else
            encode_block<Coded, false>(from + start, to, inverse, length, random_bits + start);
    });
}

template <class Coded>
constexpr Coder coder_of() {
    if constexpr (requires { typename Coded::Beside; })
        return {decode_each<Coded>, encode_each<Coded>};
    else
        return {decode_blocks<Coded>, encode_blocks<Coded>};
}

// Random bits

/// Two groups of so many elements share words: the first ones have their lower halves.
inline constexpr std::uint32_t sharing = 8;

/// A hash of each word, made of what does well as that: two multiplications between shifts.
INSTEP_INLINE Words hashed(Words x) {
    x *= 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}
INSTEP_INLINE Words ascending() {
    Words x;
    for (std::uint32_t lane = 0; lane < sizeof x / sizeof x[0]; ++lane) x[lane] = lane;
    return x;
}
/// Words from one on.
INSTEP_INLINE Words random_words(std::uint32_t first) {
    return hashed(ascending() + first);
}
/// 16 bits for each of the elements first, first + step and so on.
INSTEP_INLINE Words random_bits_from(std::uint32_t key, std::uint32_t first, std::uint32_t step) {
    const Words at = ascending() * step + first;
    const Words words = hashed((at / (2 * sharing) * sharing | (at & (sharing - 1))) + key);
    return words >> (at & sharing) * (16 / sharing) & 0xffff;
}

/// The same for a tile.
[[maybe_unused]] static void random_bits(std::uint32_t key, std::uint32_t first, std::uint32_t step,
                                         std::size_t count, std::uint16_t* to) {
    constexpr std::uint32_t lanes = sizeof(Words) / sizeof(std::uint32_t);
    const bool are_neighbours = step == 1 && first % (2 * sharing) == 0;
    for (std::size_t done = 0; done < count; done += 2 * lanes) {  // there is room
        const auto offset = static_cast<std::uint32_t>(done);
        if (lanes == sharing && are_neighbours) {
            const Words words = random_words((first + offset) / 2 + key);
            store(to + done, narrowed(words & 0xffff, words >> 16));
        } else {
            const std::uint32_t at = first + offset * step;
            store(to + done, narrowed(random_bits_from(key, at, step),
                                      random_bits_from(key, at + lanes * step, step)));
        }
    }
}

}  // namespace instep::INSTEP_LEVEL
