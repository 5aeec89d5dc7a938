// Sums over a block in an order that no instruction set, thread or alignment changes.
#pragma once

#include "engine/update.h"

namespace instep::INSTEP_LEVEL {

/// Adds the squares of the unscaled, accumulated gradient to `sum_lanes` sums, by element index
/// modulo their number. Squares of float32 are exact in the double sums and cannot overflow there.
template <class T>
static void sum_of_squares(const Block& block, double unscale, double* sums) {
    using P = Pack<T, sum_lanes * sizeof(T) / vector_bytes>;
    const Gradient<T> grad(block);
    const Stream<T> accumulated(block, accumulated_stream);
    const T factor = static_cast<T>(unscale);
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
    ahead.look_ahead(block, fetch_distance<T>);
    for (; i + sum_lanes <= block.count; i += sum_lanes) {
        ahead.template fetch<sum_lanes>(i);
        add(i, Whole{});
    }
    if (i < block.count) add(i, Part{block.count - i});
    __builtin_memcpy(sums, lanes, sizeof lanes);
}

}  // namespace instep::INSTEP_LEVEL
