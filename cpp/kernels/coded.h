// The loop for arrays of which some are kept in 16 bits: the same update, with what they are kept
// in converted in registers. Streams in blocks of 8 bits, and float16, go through tiles.
#pragma once

#include "kernels/codings.h"
#include "kernels/update.h"

namespace instep::INSTEP_LEVEL {

/// A way to and from memory that brings 16 random bits for each element.
template <class Way, int registers>
struct WithRandomBits : Way {
    Words random[registers];

    /// For elements from one on, a multiple of how many there are.
    INSTEP_INLINE WithRandomBits(Way way, const CodedBlock& block, std::size_t i) : Way(way) {
        if (!block.coded->is_random) return;
        const std::uint32_t key = block.noise_key;
        const auto first = static_cast<std::uint32_t>(block.first + i);
        constexpr std::uint32_t lanes = sizeof(Words) / sizeof(std::uint32_t);
        if constexpr (registers * lanes == 2 * sharing && lanes == sharing) {
            const Words words = random_words(first / 2 + key);
            random[0] = words & 0xffff;
            random[1] = words >> 16;
        } else {
            for (std::uint32_t k = 0; k < registers; ++k)
                random[k] = random_bits_from(key, first + k * lanes, 1);
        }
    }
};

/// One array of a block, which may be kept otherwise than kernels compute with.
template <bool may_have_remainder>
class CodedStream {
public:
    INSTEP_INLINE CodedStream(const CodedBlock& block, int which)
        : data_(static_cast<char*>(block.data[which])),
          beside_(beside(block, which)),
          coding_(block.coded->coding[which]),
          index_(which) {}

    /// What stands beside the block's first element.
    static INSTEP_INLINE std::uint16_t* beside(const CodedBlock& block, int which) {
        void* const companion = block.coded->companion[which];
        return companion ? static_cast<std::uint16_t*>(companion) + block.first : nullptr;
    }

    INSTEP_INLINE void look_ahead(const Block& block, std::ptrdiff_t offset) {
        ahead_ = static_cast<const char*>(block.data[index_]) +
                 offset * static_cast<std::ptrdiff_t>(item());
        ahead_beside_ = beside_ + offset;
    }
    template <std::size_t count>
    INSTEP_INLINE void fetch(std::size_t i) const {
        if (coding_ == Coding::none) {
            instep::INSTEP_LEVEL::fetch<count>(reinterpret_cast<const float*>(ahead_) + i);
            return;
        }
        instep::INSTEP_LEVEL::fetch<count>(reinterpret_cast<const std::uint16_t*>(ahead_) + i);
        if (has_remainder()) instep::INSTEP_LEVEL::fetch<count>(ahead_beside_ + i);
    }

    template <class P, class Way>
    INSTEP_INLINE P load(const Way& way, std::size_t i) const {
        if (coding_ == Coding::none)
            return way.template load<P>(reinterpret_cast<const float*>(data_) + i);
        std::uint16_t few[P::lanes], few_beside[P::lanes];
        const std::uint16_t* const upper =
            way.found(few, reinterpret_cast<const std::uint16_t*>(data_) + i);
        P x;
        if (has_remainder()) {
            const std::uint16_t* const lower =
                way.found(few_beside, const_cast<const std::uint16_t*>(beside_) + i);
            each<P>([&](auto k) INSTEP_INLINE_LAMBDA {
                x.part[k] = Remainder::number(widened_from(upper + k * P::register_lanes),
                                              widened_from(lower + k * P::register_lanes));
            });
        } else {
            each<P>([&](auto k) INSTEP_INLINE_LAMBDA {
                x.part[k] = BFloat16::number(widened_from(upper + k * P::register_lanes));
            });
        }
        return x;
    }
    template <class P, class Way>
    INSTEP_INLINE void store(const Way& way, std::size_t i, P x) const {
        if (coding_ == Coding::none) return way.store(reinterpret_cast<float*>(data_) + i, x);
        auto* const to = reinterpret_cast<std::uint16_t*>(data_) + i;
        if (has_remainder()) {
            write<P>(way, to,
                     [&](auto k) INSTEP_INLINE_LAMBDA { return Remainder::upper(x.part[k]); });
            write<P>(way, beside_ + i,
                     [&](auto k) INSTEP_INLINE_LAMBDA { return Remainder::lower(x.part[k]); });
        } else {
            write<P>(way, to, [&](auto k) INSTEP_INLINE_LAMBDA {
                return BFloat16::random(x.part[k], way.random[k]);
            });
        }
    }
    template <class P, class Way>
    static INSTEP_INLINE auto way(Way way, const Block& block, std::size_t i) {
        constexpr int registers = P::lanes / P::register_lanes;
        return WithRandomBits<Way, registers>(way, static_cast<const CodedBlock&>(block), i);
    }

private:
    INSTEP_INLINE bool has_remainder() const {
        return may_have_remainder && coding_ == Coding::remainder;
    }
    INSTEP_INLINE std::size_t item() const {
        return coding_ == Coding::none ? sizeof(float) : sizeof(std::uint16_t);
    }
    /// Calls run(k) for each register's index, a constant.
    template <class P, class Run>
    static INSTEP_INLINE void each(Run run) {
        [&]<int... k>(std::integer_sequence<int, k...>) INSTEP_INLINE_LAMBDA {
            (run(std::integral_constant<int, k>()), ...);
        }(std::make_integer_sequence<int, P::lanes / P::register_lanes>());
    }

    /// Writes the lower halves of each register's words.
    template <class P, class Way, class WordsOf>
    static INSTEP_INLINE void write(const Way& way, std::uint16_t* to, WordsOf words_of) {
        std::uint16_t few[P::lanes];
        std::uint16_t* const place = way.place(few, to);
        each<P>([&](auto k) INSTEP_INLINE_LAMBDA {
            if constexpr (P::lanes == P::register_lanes) {
                const Words words = words_of(k);
                const Halves halves = narrowed(words, words);
                __builtin_memcpy(place, &halves, sizeof halves / 2);
            } else if constexpr (k % 2 == 0) {
                instep::INSTEP_LEVEL::store(
                    place + k * P::register_lanes,
                    narrowed(words_of(k), words_of(std::integral_constant<int, k + 1>())));
            }
        });
        way.put(place, to);
    }

    char* data_;
    std::uint16_t* beside_;
    const char* ahead_ = nullptr;
    const std::uint16_t* ahead_beside_ = nullptr;
    Coding coding_;
    int index_;
};

template <unsigned slots, std::size_t k>
using CodedSlot =
    std::conditional_t<(slots >> k & 1) != 0, CodedStream<false>, Stream<float, false>>;

template <template <class> class Rule, unsigned slots, std::size_t... k>
INSTEP_NOINLINE void update_coded_slots(const CodedBlock& block, const Ahead& ahead,
                                        const Prepared<Rule<float>, float>& prepared,
                                        std::index_sequence<k...>) {
    const Rule<float> rule = prepared.rule;
    const Surroundings<float> around = prepared.around;
    update_block<true>(block, ahead.after, ahead.manner.bytes_ahead, rule, around,
                       CodedStream<true>(block, param_stream),
                       CodedSlot<slots, k>(block, first_slot + static_cast<int>(k))...);
}

/// The kernel of one rule for one set of slots in use: of which nothing surrounds the rule but,
/// maybe, decoupled decay.
template <template <class> class Rule, unsigned slots>
static void update_coded(const CodedBlock& block, const Ahead& ahead,
                         const Coefficients& coefficients) {
    choose_square_roots<float>(ahead.manner.half_of_roots);
    update_coded_slots<Rule, slots>(
        block, ahead, reinterpret_cast<const Prepared<Rule<float>, float>&>(coefficients),
        std::make_index_sequence<Rule<float>::slots.count>());
}

}  // namespace instep::INSTEP_LEVEL
