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

/// Adds to partial sums like those above what a rule's `measure` has to tell of a block: products
/// of two numbers per element. It sees gradient, parameter and state as its update does.
template <class Rule, class T, class... Slots>
INSTEP_INLINE void measure_block(const Block& block, const Prepared<Rule, T>& prepared,
                                 double* sums, Slots... slot) {
    using P = Pack<T, sum_lanes * sizeof(T) / vector_bytes>;
    const Surroundings<T>& around = prepared.around;
    const Factor<T> factor(block.factors);
    const Stream<T> param(block, param_stream), accumulated(block, accumulated_stream);
    const Gradient<T> grad(block);
    const auto measure = [&](std::size_t i, auto way) INSTEP_INLINE_LAMBDA {
        P p = param.template load<P>(way, i), g = grad.template load<P>(way, i);
        process(g, p, i, way, around, factor, accumulated);
        if (around.decays) p -= around.decay * p;
        const auto add = [&](Name<Rule::sums> sum, P a, P b) INSTEP_INLINE_LAMBDA {
            T x[sum_lanes], y[sum_lanes];
            a.store(x);
            b.store(y);
            double* const lanes = sums + static_cast<std::size_t>(sum.index) * sum_lanes;
            const auto add_lane = [&](std::size_t k) INSTEP_INLINE_LAMBDA {
                const double product = static_cast<double>(x[k]) * static_cast<double>(y[k]);
                lanes[k] += product;
            };
            if constexpr (std::is_same_v<decltype(way), Whole>)
                for (std::size_t k = 0; k < sum_lanes; ++k) add_lane(k);
            else
                for (std::size_t k = 0; k < way.count; ++k) add_lane(k);
        };
        prepared.rule.measure(add, p, g, slot.template load<P>(way, i)...);
    };
    std::size_t i = 0;
    for (; i + sum_lanes <= block.count; i += sum_lanes) measure(i, Whole{});
    if (i < block.count) measure(i, Part{block.count - i});
}

template <template <class> class Rule, class T, unsigned slots>
static void measure(const Block& block, const Coefficients& coefficients, double* sums) {
    const auto& prepared = reinterpret_cast<const Prepared<Rule<T>, T>&>(coefficients);
    [&]<std::size_t... k>(std::index_sequence<k...>) INSTEP_INLINE_LAMBDA {
        measure_block(block, prepared, sums,
                      Stream<T, (slots >> k & 1) != 0>(block, first_slot + static_cast<int>(k))...);
    }(std::make_index_sequence<Rule<T>::slots.count>());
}

}  // namespace instep::INSTEP_LEVEL
