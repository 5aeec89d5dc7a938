// The loop that every rule, precision and option goes through.
#pragma once

#include <type_traits>
#include <utility>

#include "engine/kernels.h"
#include "kernels/pack.h"

namespace instep::INSTEP_LEVEL {

/// So many elements are fetched ahead of their use: whole packs, at most all there are.
template <class T, std::size_t lanes>
INSTEP_INLINE std::size_t packs_ahead(std::size_t bytes, std::size_t most) {
    const std::size_t elements = (bytes / sizeof(T) + lanes - 1) / lanes * lanes;
    return elements < most ? elements : most;
}

template <std::size_t count, class T>
INSTEP_INLINE void fetch(const T* at) {
    for (std::size_t byte = 0; byte < count * sizeof(T); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(at) + byte);
}

/// How elements get from memory into a pack and back: as many as it holds.
struct Whole {
    template <class P, class T>
    INSTEP_INLINE P load(const T* from) const {
        return P::load(from);
    }
    template <class P, class T>
    INSTEP_INLINE void store(T* to, P x) const {
        x.store(to);
    }
    /// Where to find a pack's elements, and where to put them.
    template <class T, std::size_t count>
    INSTEP_INLINE const T* found(T (&)[count], const T* from) const {
        return from;
    }
    template <class T, std::size_t count>
    INSTEP_INLINE T* place(T (&)[count], T* to) const {
        return to;
    }
    template <class T>
    INSTEP_INLINE void put(const T*, T*) const {}
};
/// The last few of a block.
struct Part {
    std::size_t count;

    template <class P, class T>
    INSTEP_INLINE P load(const T* from) const {
        T elements[P::lanes] = {};
        __builtin_memcpy(elements, from, count * sizeof(T));
        return P::load(elements);
    }
    template <class P, class T>
    INSTEP_INLINE void store(T* to, P x) const {
        T elements[P::lanes];
        x.store(elements);
        __builtin_memcpy(to, elements, count * sizeof(T));
    }
    template <class T, std::size_t all>
    INSTEP_INLINE const T* found(T (&elements)[all], const T* from) const {
        __builtin_memset(elements, 0, sizeof elements);
        __builtin_memcpy(elements, from, count * sizeof(T));
        return elements;
    }
    template <class T, std::size_t all>
    INSTEP_INLINE T* place(T (&elements)[all], T*) const {
        return elements;
    }
    template <class T>
    INSTEP_INLINE void put(const T* elements, T* to) const {
        __builtin_memcpy(to, elements, count * sizeof(T));
    }
};

/// One array of a block.
template <class T, bool is_used = true>
struct Stream {
    T* data;
    const T* ahead = nullptr;
    int index;

    INSTEP_INLINE Stream(const Block& block, int which)
        : data(static_cast<T*>(block.data[which])), index(which) {}
    /// From now on `fetch(i)` fetches elements from i + offset of that block on.
    INSTEP_INLINE void look_ahead(const Block& block, std::ptrdiff_t offset) {
        ahead = static_cast<const T*>(block.data[index]) + offset;
    }
    template <std::size_t count>
    INSTEP_INLINE void fetch(std::size_t i) const {
        instep::INSTEP_LEVEL::fetch<count>(ahead + i);
    }
    template <class P, class Way>
    INSTEP_INLINE P load(const Way& way, std::size_t i) const {
        return way.template load<P>(static_cast<const T*>(data + i));
    }
    template <class P, class Way>
    INSTEP_INLINE void store(const Way& way, std::size_t i, P x) const {
        way.store(data + i, x);
    }
    /// What a way needs for elements from i on.
    template <class P, class Way>
    static INSTEP_INLINE Way way(Way way, const Block&, std::size_t) {
        return way;
    }
};
/// A state slot that the configuration does not use.
template <class T>
struct Stream<T, false> {
    INSTEP_INLINE Stream(const Block&, int) {}
    INSTEP_INLINE void look_ahead(const Block&, std::ptrdiff_t) {}
    template <std::size_t count>
    INSTEP_INLINE void fetch(std::size_t) const {}
    template <class P, class Way>
    INSTEP_INLINE Unused load(const Way&, std::size_t) const {
        return {};
    }
    template <class Way>
    INSTEP_INLINE void store(const Way&, std::size_t, Unused) const {}
};

/// What is seen of a slot in parts.
template <class Rule, class T>
struct PartsStream : Stream<T> {
    T common;
    bool is_combined;

    INSTEP_INLINE PartsStream(const Block& block, int which)
        : Stream<T>(block, which),
          common(block.common ? *static_cast<const T*>(block.common) : T()),
          is_combined(!block.common) {}
    INSTEP_INLINE void look_ahead(const Block&, std::ptrdiff_t) {}
    template <std::size_t count>
    INSTEP_INLINE void fetch(std::size_t) const {}
    template <class P, class Way>
    INSTEP_INLINE InParts<P> load(const Way& way, std::size_t i) const {
        const P x = Stream<T>::template load<P>(way, i);
        return {is_combined ? x : Rule::combined(P(common), x)};
    }
    template <class Way, class P>
    INSTEP_INLINE void store(const Way&, std::size_t, InParts<P>) const {}
};

template <class Rule>
constexpr int divisible_slot() {
    for (int k = 0; k < Rule::slots.count; ++k)
        if (Rule::slots.item[k].divisible) return k;
    return -1;
}

/// The stream of a rule's k-th slot, with these in use.
template <class Rule, class T, unsigned slots, std::size_t k>
using SlotStream = std::conditional_t<(slots & in_parts) != 0 && divisible_slot<Rule>() == int{k},
                                      PartsStream<Rule, T>, Stream<T, (slots >> k & 1) != 0>>;

/// The gradient, in any format.
template <class T>
class Gradient {
public:
    INSTEP_INLINE Gradient(const Block& block)
        : data_(block.data[grad_stream]),
          format_(block.grad_format),
          converts_(format_ != format_of_type<T>) {}

    INSTEP_INLINE void look_ahead(const Block& block, std::ptrdiff_t offset) {
        ahead_ = static_cast<const char*>(block.data[grad_stream]) +
                 offset * static_cast<std::ptrdiff_t>(itemsize(format_));
    }
    template <std::size_t count>
    INSTEP_INLINE void fetch(std::size_t i) const {
        as_elements(ahead_, [&](const auto* elements) INSTEP_INLINE_LAMBDA {
            instep::INSTEP_LEVEL::fetch<count>(elements + i);
        });
    }
    template <class P, class Way>
    INSTEP_INLINE P load(const Way& way, std::size_t i) const {
        return as_elements(data_, [&](const auto* elements) INSTEP_INLINE_LAMBDA {
            return way.template load<P>(elements + i);
        });
    }

private:
    template <class Function>
    INSTEP_INLINE auto as_elements(const void* memory, Function function) const {
        if (INSTEP_OFTEN(!converts_)) return function(static_cast<const T*>(memory));
        return as_stored(format_, memory, function);
    }

    const void *data_, *ahead_ = nullptr;
    Format format_;
    bool converts_;
};

/// `Around` in the kernel's precision.
template <class T>
struct Surroundings {
    Factor<T> unscale;
    T clipvalue, l2, decay;
    Average<T> ema_momentum;
    bool clips, adds_l2, decays, first_average, overwrite;
    bool plain;  ///< nothing but, maybe, decoupled decay

    explicit Surroundings(const Around& around)
        : unscale(around.unscale),
          clipvalue(static_cast<T>(around.group.clipvalue)),
          l2(static_cast<T>(around.group.l2)),
          decay(static_cast<T>(around.decay)),
          ema_momentum(around.ema_momentum),
          clips(around.group.clipvalue != no_limit),
          adds_l2(l2 != 0),
          decays(decay != 0),
          first_average(around.first_average),
          overwrite(around.overwrite),
          plain(around.unscale.first == 1 && !clips && !adds_l2) {}
};

/// What `Coefficients` hold.
template <class Rule, class T>
struct Prepared {
    Rule rule;
    Surroundings<T> around;
    bool plain;  ///< nothing around the rule, and its averages are long ones
};

/// Whether a rule sees gradients of the block as they are, and its usual formula will do.
template <class Rule, class T>
INSTEP_INLINE bool is_plain(const Block& block, const Prepared<Rule, T>& prepared) {
    return prepared.plain && block.factors.first == 1 && !block.data[accumulated_stream];
}

/// What happens to the gradient before the rule sees it.
template <class P, class T, class Way>
INSTEP_INLINE void process(P& g, P p, std::size_t i, const Way& way, const Surroundings<T>& around,
                           const Factor<T>& factor, const Stream<T>& accumulated) {
    g = around.unscale * g;
    if (accumulated.data) g += accumulated.template load<P>(way, i);
    g = factor * g;
    if (around.clips) {
        g = select(around.clipvalue < g, P(around.clipvalue), g);
        g = select(g < -around.clipvalue, P(-around.clipvalue), g);
    }
    if (around.adds_l2) g += around.l2 * p;
}

/// Loads, updates and stores a pack of elements, from i on.
template <class P, class T, class Rule, class Way, class Param, class... Slots>
INSTEP_INLINE void update_at(std::size_t i, const Way& way, const Rule& rule,
                             const Surroundings<T>& around, const Factor<T>& factor,
                             const Param& param, const Gradient<T>& grad, const Stream<T>& average,
                             const Stream<T>& accumulated, const Slots&... slot) {
    P p = param.template load<P>(way, i), g = grad.template load<P>(way, i);
    [&](auto... s) INSTEP_INLINE_LAMBDA {
        if constexpr (!P::plain) process(g, p, i, way, around, factor, accumulated);
        if (around.decays) p -= around.decay * p;
        rule(p, g, s...);
        if constexpr (!P::plain) {
            if (average.data) {
                const P mean = around.first_average
                                   ? p
                                   : around.ema_momentum(average.template load<P>(way, i), p);
                average.store(way, i, mean);
                if (around.overwrite) p = mean;
            }
        }
        param.store(way, i, p);
        (slot.store(way, i, s), ...);
    }(slot.template load<P>(way, i)...);
}

/// Updates a block. What is fetched meanwhile lies so many bytes further on in it, and towards its
/// end at the beginning of the next one.
template <bool plain, class Rule, class T, class Param, class... Slots>
INSTEP_INLINE void update_block(const Block& block, const Block& next, std::size_t bytes_ahead,
                                const Rule& rule, const Surroundings<T>& around, Param param,
                                Slots... slot) {
    using Wide = Pack<T, wide, plain>;
    using Narrow = Pack<T, 1, plain>;
    const Factor<T> factor(plain ? Factors() : block.factors);
    Gradient<T> grad(block);
    const Stream<T> average(block, average_stream), accumulated(block, accumulated_stream);
    const auto update = [&]<class P>(std::size_t i, auto way, P) INSTEP_INLINE_LAMBDA {
        update_at<P>(i, Param::template way<P>(way, block, i), rule, around, factor, param, grad,
                     average, accumulated, slot...);
    };

    const std::size_t whole = block.count - block.count % Wide::lanes;
    const std::size_t distance = packs_ahead<T, Wide::lanes>(bytes_ahead, whole);
    std::size_t i = 0;
    for (const bool at_end : {false, true}) {
        const Block& ahead = at_end ? next : block;
        const auto offset = static_cast<std::ptrdiff_t>(at_end ? distance - whole : distance);
        param.look_ahead(ahead, offset);
        grad.look_ahead(ahead, offset);
        (slot.look_ahead(ahead, offset), ...);
        for (const std::size_t end = at_end ? whole : whole - distance; i < end; i += Wide::lanes) {
            if (distance) {
                param.template fetch<Wide::lanes>(i);
                grad.template fetch<Wide::lanes>(i);
                (slot.template fetch<Wide::lanes>(i), ...);
            }
            update(i, Whole{}, Wide());
        }
    }
    for (; i + Narrow::lanes <= block.count; i += Narrow::lanes) update(i, Whole{}, Narrow());
    if (i < block.count) update(i, Part{block.count - i}, Narrow());
}

/// The block that is next to be fetched while block k is worked on: the farther away the smaller
/// they are.
template <class T>
INSTEP_INLINE const Block& block_ahead(const Blocks& blocks, std::size_t k, const Ahead& ahead) {
    const std::size_t bytes = blocks[k].count * sizeof(T) + 1;
    k += bytes < ahead.manner.bytes_ahead ? ahead.manner.bytes_ahead / bytes : 1;
    return k < blocks.count ? blocks[k] : ahead.after;
}

/// One of the two loops of a kernel, apart from the other: each sets up no more than it needs. Over
/// blocks [first, last).
template <template <class> class Rule, class T, unsigned slots, bool plain, std::size_t... k>
INSTEP_NOINLINE void update_slots(const Blocks& blocks, std::size_t first, std::size_t last,
                                  const Ahead& ahead, const Prepared<Rule<T>, T>& prepared,
                                  std::index_sequence<k...>) {
    const Rule<T> rule = prepared.rule;
    const Surroundings<T> around = prepared.around;
    for (; first < last; ++first) {
        const Block& block = blocks[first];
        update_block<plain>(
            block, block_ahead<T>(blocks, first, ahead), ahead.manner.bytes_ahead, rule, around,
            Stream<T>(block, param_stream),
            SlotStream<Rule<T>, T, slots, k>(block, first_slot + static_cast<int>(k))...);
    }
}

/// The kernel of one rule in one precision for one set of slots in use.
template <template <class> class Rule, class T, unsigned slots>
static void update(const Blocks& blocks, const Ahead& ahead, const Coefficients& coefficients) {
    const auto& prepared = reinterpret_cast<const Prepared<Rule<T>, T>&>(coefficients);
    constexpr auto indices = std::make_index_sequence<Rule<T>::slots.count>();
    choose_square_roots<T>(ahead.manner.half_of_roots);
    const auto takes_plain_loop = [&](const Block& block) INSTEP_INLINE_LAMBDA {
        return is_plain(block, prepared) && !block.data[average_stream];
    };
    for (std::size_t first = 0, last; first < blocks.count; first = last) {
        const bool plain = takes_plain_loop(blocks[first]);
        last = first + 1;
        while (last < blocks.count && takes_plain_loop(blocks[last]) == plain) ++last;
        if (plain)
            update_slots<Rule, T, slots, true>(blocks, first, last, ahead, prepared, indices);
        else
            update_slots<Rule, T, slots, false>(blocks, first, last, ahead, prepared, indices);
    }
}

}  // namespace instep::INSTEP_LEVEL
