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
    const Gradient<T> grad(block);
    const Stream<T> accumulated(block, accumulated_stream);
    const Factor<T> factor(unscale);
    double lanes[sum_lanes];
    __builtin_memcpy(lanes, sums, sizeof lanes);
    const auto add = [&](std::size_t i, auto way) INSTEP_INLINE_LAMBDA {
        P g = factor * grad.template load<P>(way, i);
        if (accumulated.data) g += accumulated.template load<P>(way, i);
        T x[sum_lanes];
        g.store(x);
        for (std::size_t k = 0; k < sum_lanes; ++k) {
            const double square = static_cast<double>(x[k]) * static_cast<double>(x[k]);
            lanes[k] += square;
        }
    };
    std::size_t i = 0;
    Gradient<T> ahead(block);
    ahead.look_ahead(block, static_cast<std::ptrdiff_t>(bytes_ahead / sizeof(T)));
    for (; i + sum_lanes <= block.count; i += sum_lanes) {
        if (bytes_ahead) ahead.template fetch<sum_lanes>(i);
        add(i, Whole{});
    }
    if (i < block.count) add(i, Part{block.count - i});
    __builtin_memcpy(sums, lanes, sizeof lanes);
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
INSTEP_INLINE double sum_of(T* lanes) {
    for (std::size_t width = sum_lanes / 2; width > 0; width /= 2)
        for (std::size_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
    return static_cast<double>(lanes[0]);
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
    return sum_of(lanes);
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
        *change = sum_of(lanes);
    }
    if (result) {
        quick_squares<T>(
            count,
            [&]<class P, class Way>(P, std::size_t i, Way way)
                INSTEP_INLINE_LAMBDA { return way.template load<P>(now + i); },
            lanes);
        *result = sum_of(lanes);
    }
}

/// Adds to partial sums like those above what a rule's `measure` has to tell of a block: products
/// of two numbers per element. It sees gradient, parameter and state as its update does.
template <bool plain, class Rule, class T, class... Slots>
INSTEP_INLINE void measure_block(const Block& block, std::size_t bytes_ahead,
                                 const Prepared<Rule, T>& prepared, double* sums, Slots... slot) {
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
    double partial[Rule::sums.count * sum_lanes];
    __builtin_memcpy(partial, sums, sizeof partial);
    const auto measure = [&](std::size_t i, auto way) INSTEP_INLINE_LAMBDA {
        P p = param.template load<P>(way, i), g = grad.template load<P>(way, i);
        if constexpr (!plain) process(g, p, i, way, around, factor, accumulated);
        if constexpr (!requires { Rule::measures_before_decay; })
            if (around.decays) p -= around.decay * p;
        const auto add = [&](Name<Rule::sums> sum, P a, P b) INSTEP_INLINE_LAMBDA {
            double* const lanes = partial + static_cast<std::size_t>(sum.index) * sum_lanes;
            const auto product = widened(a) * widened(b);
            if constexpr (std::is_same_v<decltype(way), Whole>) {
                (decltype(product)::load(lanes) + product).store(lanes);
            } else {
                double x[sum_lanes];
                product.store(x);
                for (std::size_t k = 0; k < way.count; ++k) lanes[k] += x[k];
            }
        };
        rule.measure(add, p, g, slot.template load<P>(way, i)...);
    };
    std::size_t i = 0;
    for (; i + sum_lanes <= block.count; i += sum_lanes) {
        if (bytes_ahead) {
            param.template fetch<sum_lanes>(i);
            grad.template fetch<sum_lanes>(i);
            (slot.template fetch<sum_lanes>(i), ...);
        }
        measure(i, Whole{});
    }
    if (i < block.count) measure(i, Part{block.count - i});
    __builtin_memcpy(sums, partial, sizeof partial);
}

template <template <class> class Rule, class T, unsigned slots, bool plain, std::size_t... k>
INSTEP_NOINLINE void measure_slots(const Block& block, std::size_t bytes_ahead,
                                   const Prepared<Rule<T>, T>& prepared, double* sums,
                                   std::index_sequence<k...>) {
    measure_block<plain>(
        block, bytes_ahead, prepared, sums,
        SlotStream<Rule<T>, T, slots, k>(block, first_slot + static_cast<int>(k))...);
}

template <template <class> class Rule, class T, unsigned slots>
static void measure(const Block& block, std::size_t bytes_ahead, const Coefficients& coefficients,
                    double* sums) {
    const auto& prepared = reinterpret_cast<const Prepared<Rule<T>, T>&>(coefficients);
    constexpr auto indices = std::make_index_sequence<Rule<T>::slots.count>();
    // With registers of 128 bits a loop of its own would be more code than in all other levels.
    if constexpr (vector_bytes > 16)
        if (is_plain(block, prepared))
            return measure_slots<Rule, T, slots, true>(block, bytes_ahead, prepared, sums, indices);
    measure_slots<Rule, T, slots, false>(block, bytes_ahead, prepared, sums, indices);
}

}  // namespace instep::INSTEP_LEVEL
