// Sums over a block in an order that no instruction set, thread or alignment changes.
#pragma once

#include "kernels/update.h"

namespace instep::INSTEP_LEVEL {

/// Adds the squares of the unscaled, accumulated gradient to `sum_lanes` sums, by element index
/// modulo their number. Squares of float32 are exact in the double sums and cannot overflow there.
template <class T>
static void sum_of_squares(const Block& block, const Factors& unscale, std::size_t bytes_ahead,
                           double* sums) {
    using P = Pack<T, sum_lanes * sizeof(T) / vector_bytes>;
    using Wide = Pack<double, sum_lanes * sizeof(double) / vector_bytes>;
    const Gradient<T> grad(block);
    const Stream<T> accumulated(block, accumulated_stream);
    const Factor<T> factor(unscale);
    Wide total = Wide::load(sums);
    const auto add = [&](std::size_t i, auto way) INSTEP_INLINE_LAMBDA {
        P g = factor * grad.template load<P>(way, i);
        if (accumulated.data) g += accumulated.template load<P>(way, i);
        const Wide x = widened(g);
        total += x * x;
    };
    std::size_t i = 0;
    Gradient<T> ahead(block);
    ahead.look_ahead(block, static_cast<std::ptrdiff_t>(bytes_ahead / sizeof(T)));
    for (; i + sum_lanes <= block.count; i += sum_lanes) {
        if (bytes_ahead) ahead.template fetch<sum_lanes>(i);
        add(i, Whole{});
    }
    if (i < block.count) add(i, Part{block.count - i});
    total.store(sums);
}

/// The sum of so many squares, as many lanes at a time as there are sums: in their own precision,
/// which does for a tile, and in an order that nothing changes.
template <class T, class Load>
INSTEP_INLINE void quick_squares(std::size_t count, Load load, T* lanes) {
    using P = Pack<T, sum_lanes * sizeof(T) / vector_bytes>;
    P sums = P(T(0));
    std::size_t i = 0;
    for (; i + sum_lanes <= count; i += sum_lanes) {
        const P x = load(P(), i, Whole{});
        sums += x * x;
    }
    if (i < count) {
        const P x = load(P(), i, Part{count - i});
        sums += x * x;
    }
    sums.store(lanes);
}
template <class T>
INSTEP_INLINE T sum_of(T* lanes) {
    return joined<sum_lanes>(lanes, [](T a, T b) { return a + b; });
}

/// The squares of a tile's gradient, unscaled and accumulated.
template <class T>
static double watch_gradient(const Block& block, const Factors& unscale) {
    const Gradient<T> grad(block);
    const Stream<T> accumulated(block, accumulated_stream);
    const Factor<T> factor(unscale);
    T lanes[sum_lanes];
    if (unscale.first == 1 && !accumulated.data)
        quick_squares<T>(
            block.count,
            [&]<class P, class Way>(P, std::size_t i, Way way)
                INSTEP_INLINE_LAMBDA { return grad.template load<P>(way, i); },
            lanes);
    else
        quick_squares<T>(
            block.count,
            [&]<class P, class Way>(P, std::size_t i, Way way) INSTEP_INLINE_LAMBDA {
                P g = factor * grad.template load<P>(way, i);
                if (accumulated.data) g += accumulated.template load<P>(way, i);
                return g;
            },
            lanes);
    return static_cast<double>(sum_of(lanes));
}

/// The squares of so many elements, and of how far they are from others.
template <class T>
static void watch_change(const void* before, const void* after, std::size_t count, double* change,
                         double* result) {
    const T *const old = static_cast<const T*>(before), *const now = static_cast<const T*>(after);
    T lanes[sum_lanes];
    if (change) {
        quick_squares<T>(
            count,
            [&]<class P, class Way>(P, std::size_t i, Way way) INSTEP_INLINE_LAMBDA {
                return way.template load<P>(now + i) - way.template load<P>(old + i);
            },
            lanes);
        *change = static_cast<double>(sum_of(lanes));
    }
    if (result) {
        quick_squares<T>(
            count,
            [&]<class P, class Way>(P, std::size_t i, Way way)
                INSTEP_INLINE_LAMBDA { return way.template load<P>(now + i); },
            lanes);
        *result = static_cast<double>(sum_of(lanes));
    }
}

/// By what numbers are multiplied whose products have such a sum in float32: where it overflows, or
/// where products may have vanished that matter.
inline float better_scale(double sum) {
    if (__builtin_fabs(sum) < 0x1p-80) return 0x1p64f;
    return __builtin_fabs(sum) <= __FLT_MAX__ ? 1 : 0x1p-70f;
}

/// What a rule's `measure` has to tell of elements [i, end), a tile at most: squares of elements,
/// or products of two, all of them multiplied by a scale first. It sees gradient, parameter and
/// state as its update does.
template <bool plain, class Rule, class T, class... Slots>
INSTEP_INLINE void measure_tile(const Block& block, std::size_t i, std::size_t end,
                                std::size_t bytes_ahead, const Prepared<Rule, T>& prepared, T scale,
                                T* sums, Slots... slot) {
    using P = Pack<T, sum_lanes * sizeof(T) / vector_bytes, plain>;
    const Rule rule = prepared.rule;
    const Surroundings<T> around = prepared.around;
    const Factor<T> factor(plain ? Factors() : block.factors);
    const Stream<T> accumulated(block, accumulated_stream);
    Stream<T> param(block, param_stream);
    Gradient<T> grad(block);
    // Farther than in updates: fewer streams have as many lines of the cache under way.
    const auto distance = static_cast<std::ptrdiff_t>(2 * bytes_ahead / sizeof(T));
    param.look_ahead(block, distance);
    grad.look_ahead(block, distance);
    (slot.look_ahead(block, distance), ...);
    P totals[Rule::sums.count];
    for (P& total : totals) total = P(T(0));
    const auto measure = [&](auto way) INSTEP_INLINE_LAMBDA {
        P p = param.template load<P>(way, i), g = grad.template load<P>(way, i);
        if constexpr (!plain) process(g, p, i, way, around, factor, accumulated);
        if constexpr (!requires { Rule::measures_before_decay; })
            if (around.decays) p -= around.decay * p;
        const auto add = [&](Name<Rule::sums> sum, P a, auto... b) INSTEP_INLINE_LAMBDA {
            const P x = scale * a;
            P product;
            if constexpr (sizeof...(b) == 0)
                product = x * x;
            else
                product = (x * ... * (scale * b));
            if constexpr (std::is_same_v<decltype(way), Part>) {
                T alone[P::lanes] = {};
                way.store(alone, product);
                product = P::load(alone);
            }
            totals[sum.index] += product;
        };
        rule.measure(add, p, g, slot.template load<P>(way, i)...);
    };
    for (; i + sum_lanes <= end; i += sum_lanes) {
        if (bytes_ahead) {
            param.template fetch<sum_lanes>(i);
            grad.template fetch<sum_lanes>(i);
            (slot.template fetch<sum_lanes>(i), ...);
        }
        measure(Whole{});
    }
    if (i < end) measure(Part{end - i});
    for (const P& total : totals) {
        T lanes[sum_lanes];
        total.store(lanes);
        *sums++ = sum_of(lanes);
    }
}

template <template <class> class Rule, class T, unsigned slots, bool plain, std::size_t... k>
INSTEP_NOINLINE void measure_slots(const Block& block, std::size_t i, std::size_t end,
                                   std::size_t bytes_ahead, const Prepared<Rule<T>, T>& prepared,
                                   T scale, T* sums, std::index_sequence<k...>) {
    measure_tile<plain>(
        block, i, end, bytes_ahead, prepared, scale, sums,
        SlotStream<Rule<T>, T, slots, k>(block, first_slot + static_cast<int>(k))...);
}

/// Adds a rule's sums to the first ones of partial sums like those above, a tile at a time. Where
/// float32 has no room for products, or is too coarse for them, it gets them scaled.
template <template <class> class Rule, class T, unsigned slots>
static void measure(const Block& block, std::size_t bytes_ahead, const Coefficients& coefficients,
                    double* sums) {
    const auto& prepared = reinterpret_cast<const Prepared<Rule<T>, T>&>(coefficients);
    // With registers of 128 bits a loop of its own would be more code than in all other levels.
    const bool plain = vector_bytes > 16 && is_plain(block, prepared);
    for (std::size_t i = 0; i < block.count; i += tile_elements) {
        const std::size_t end = i + tile_elements < block.count ? i + tile_elements : block.count;
        const auto sums_with = [&](T scale, T* to) {
            const std::size_t ahead = scale == 1 ? bytes_ahead : 0;
            constexpr auto indices = std::make_index_sequence<Rule<T>::slots.count>();
            if constexpr (vector_bytes > 16)
                if (plain)
                    return measure_slots<Rule, T, slots, true>(block, i, end, ahead, prepared,
                                                               scale, to, indices);
            measure_slots<Rule, T, slots, false>(block, i, end, ahead, prepared, scale, to,
                                                 indices);
        };
        constexpr int count = Rule<T>::sums.count;
        T first[count], again[count];
        sums_with(1, first);
        for (int k = 0; k < count; ++k) {
            double sum = static_cast<double>(first[k]);
            if (const float scale = better_scale(sum); sizeof(T) == sizeof(float) && scale != 1) {
                sums_with(static_cast<T>(scale), again);
                const double scaled = static_cast<double>(again[k]), factor = 1 / double{scale};
                // Large numbers that cancelled each other out are as good as they were.
                if (scale < 1 || __builtin_isfinite(scaled)) sum = scaled * factor * factor;
            }
            sums[static_cast<std::size_t>(k) * sum_lanes] += sum;
        }
    }
}

}  // namespace instep::INSTEP_LEVEL
