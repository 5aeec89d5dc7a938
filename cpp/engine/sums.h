// Sums over a block in an order that no instruction set, thread or alignment changes.
#pragma once

#include "engine/update.h"

namespace instep::INSTEP_LEVEL {

/// Adds the squares of the unscaled, accumulated gradient to `granule` sums, by element index
/// modulo their number. Squares of float32 are exact in the double sums and cannot overflow there.
template <class T>
static void sum_of_squares(const Block& block, double* sums) {
    const T* const grad = static_cast<const T*>(block.grad);
    const GradientStage<T> gradient(block);
    double lane[granule];
    __builtin_memcpy(lane, sums, sizeof lane);
    for (std::size_t i = 0; i < block.count; i += granule) {
        T g[granule];
        for (std::size_t k = 0; k < granule; k += Pack<T>::lanes) {
            prefetch(grad + i + k);
            gradient.raw(Pack<T>::load(grad + i + k), i + k).store(g + k);
        }
        for (std::size_t k = 0; k < granule; ++k) {
            const double x = static_cast<double>(g[k]);
            lane[k] += x * x;
        }
    }
    __builtin_memcpy(sums, lane, sizeof lane);
}

}  // namespace instep::INSTEP_LEVEL
