// Sums over a block in an order that no instruction set, thread or alignment changes.
#pragma once

#include "engine/update.h"

namespace instep::INSTEP_LEVEL {

/// Adds the squares of the unscaled, accumulated gradient to `sum_lanes` sums, by element index
/// modulo their number. Squares of float32 are exact in the double sums and cannot overflow there.
template <class T>
static void sum_of_squares(const Block& block, double unscale, double* sums) {
    const T* const grad = static_cast<const T*>(block.data[grad_stream]);
    const T* const accumulated = static_cast<const T*>(block.data[accumulated_stream]);
    const T factor = static_cast<T>(unscale);
    double lanes[sum_lanes];
    __builtin_memcpy(lanes, sums, sizeof lanes);
    using P = Pack<T, sum_lanes * sizeof(T) / vector_bytes>;
    const auto add = [&](const T* g, const T* a) INSTEP_INLINE_LAMBDA {
        T x[sum_lanes];
        P sum = factor * P::load(g);
        if (a) sum += P::load(a);
        sum.store(x);
        for (std::size_t k = 0; k < sum_lanes; ++k) {
            const double square = static_cast<double>(x[k]) * static_cast<double>(x[k]);
            lanes[k] += square;
        }
    };
    std::size_t i = 0;
    for (; i + sum_lanes <= block.count; i += sum_lanes) {
        fetch<sum_lanes>(grad + i + fetch_distance<T>);
        add(grad + i, accumulated ? accumulated + i : nullptr);
    }
    if (const std::size_t rest = block.count - i; rest > 0) {
        T g[sum_lanes] = {}, a[sum_lanes] = {};
        __builtin_memcpy(g, grad + i, rest * sizeof(T));
        if (accumulated) __builtin_memcpy(a, accumulated + i, rest * sizeof(T));
        add(g, a);
    }
    __builtin_memcpy(sums, lanes, sizeof lanes);
}

}  // namespace instep::INSTEP_LEVEL
