// The loop that every rule, dtype and option goes through.
#pragma once

#include <utility>

#include "engine/kernels.h"
#include "engine/simd.h"

namespace instep::INSTEP_LEVEL {

/// How far ahead of their use elements are fetched into the cache, in bytes.
inline constexpr std::size_t prefetch_distance = 2048;

template <class T>
INSTEP_INLINE void prefetch(const T* at) {
    for (std::size_t line = 0; line < Pack<T>::lanes * sizeof(T); line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(at) + prefetch_distance + line);
}

/// One state slot of a block: an array, or nothing.
template <class T, bool is_used>
struct SlotStream {
    T* data;
    INSTEP_INLINE explicit SlotStream(void* from) : data(static_cast<T*>(from)) {}
    INSTEP_INLINE Pack<T> load(std::size_t i) const {
        prefetch(data + i);
        return Pack<T>::load(data + i);
    }
    INSTEP_INLINE void store(std::size_t i, Pack<T> x) const { x.store(data + i); }
};
template <class T>
struct SlotStream<T, false> {
    INSTEP_INLINE explicit SlotStream(void*) {}
    INSTEP_INLINE Unused load(std::size_t) const { return {}; }
    INSTEP_INLINE void store(std::size_t, Unused) const {}
};

/// The gradient as the rule sees it, from the raw one and the parameter before the step.
template <class T>
struct GradientStage {
    const T* accumulated;
    T unscale, scale, clipvalue, l2;
    bool has_accumulated, has_clipvalue, has_l2, as_is;

    INSTEP_INLINE explicit GradientStage(const Block& block)
        : accumulated(static_cast<const T*>(block.accumulated)),
          unscale(static_cast<T>(block.around->unscale)),
          scale(static_cast<T>(block.around->scale)),
          clipvalue(static_cast<T>(block.around->clipvalue)),
          l2(static_cast<T>(block.around->l2)),
          has_accumulated(accumulated != nullptr),
          has_clipvalue(block.around->clipvalue != no_clipping),
          has_l2(l2 != 0),
          as_is(scale == 1 && unscale == 1 && !has_accumulated && !has_clipvalue) {}

    INSTEP_INLINE Pack<T> raw(Pack<T> g, std::size_t i) const {
        g = unscale * g;
        if (has_accumulated) g += Pack<T>::load(accumulated + i);
        return g;
    }
    INSTEP_INLINE Pack<T> operator()(Pack<T> g, Pack<T> p, std::size_t i) const {
        if (!as_is) {
            g = scale * raw(g, i);
            if (has_clipvalue) {
                g = select(clipvalue < g, Pack<T>(clipvalue), g);
                g = select(g < -clipvalue, Pack<T>(-clipvalue), g);
            }
        }
        if (has_l2) g += l2 * p;
        return g;
    }
};

/// The parameter's moving average, taken after the rule.
template <class T>
struct AverageStage {
    T* average;
    Average<T> momentum;
    bool first, overwrite;

    INSTEP_INLINE explicit AverageStage(const Block& block)
        : average(static_cast<T*>(block.average)),
          momentum(block.around->ema_momentum),
          first(block.around->first_average),
          overwrite(block.around->overwrite) {}

    INSTEP_INLINE void operator()(Pack<T>& p, std::size_t i) const {
        if (!average) return;
        const Pack<T> mean = first ? p : momentum(Pack<T>::load(average + i), p);
        mean.store(average + i);
        if (overwrite) p = mean;
    }
};

template <class Rule, class T, class... Slots>
INSTEP_INLINE void update_streams(const Block& block, Slots... slot) {
    T* const param = static_cast<T*>(block.param);
    const T* const grad = static_cast<const T*>(block.grad);
    const std::size_t count = block.count;
    const Rule rule = *static_cast<const Rule*>(block.coefficients);
    const GradientStage<T> gradient(block);
    const AverageStage<T> average(block);
    const T decay = static_cast<T>(block.around->decay);
    const bool decays = decay != 0;

    for (std::size_t i = 0; i < count; i += Pack<T>::lanes) {
        prefetch(param + i);
        prefetch(grad + i);
        Pack<T> p = Pack<T>::load(param + i);
        const Pack<T> raw = Pack<T>::load(grad + i);
        [&](auto... s) INSTEP_INLINE_LAMBDA {
            const Pack<T> g = gradient(raw, p, i);
            if (decays) p -= decay * p;
            rule(p, g, s...);
            average(p, i);
            p.store(param + i);
            (slot.store(i, s), ...);
        }(slot.load(i)...);
    }
}

template <template <class> class Rule, class T, unsigned slots, std::size_t... k>
INSTEP_INLINE void update_slots(const Block& block, std::index_sequence<k...>) {
    update_streams<Rule<T>, T>(block, SlotStream<T, (slots >> k & 1) != 0>(block.slots[k])...);
}

/// The kernel of one rule in one dtype for one set of slots in use.
template <template <class> class Rule, class T, unsigned slots>
static void update(const Block& block) {
    static_assert(granule % Pack<T>::lanes == 0);
    update_slots<Rule, T, slots>(block, std::make_index_sequence<Rule<T>::slots.count>());
}

}  // namespace instep::INSTEP_LEVEL
