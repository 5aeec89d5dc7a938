// Sums in an order that nothing changes, and norms that overflow only where they must.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/work.h"

namespace instep {

/// Elements that are summed at a time: this fixes the bits of norms.
inline constexpr std::size_t block_elements = 16384;

/// What squares are summed of: the caller's gradients, or their sums over the window.
enum class Squares { raw, accumulated };

/// The sum over all lanes, in a fixed order.
double sum_of_lanes(double* lanes);

/// The sum of the gradient's squares in [start, start + count), added up in a fixed order.
double sum_of_squares(const Work& work, const Plan& plan, Squares what, std::size_t start,
                      std::size_t count, std::size_t bytes_ahead);

/// The 2-norm of those elements where their sum of squares is not finite, though the norm may be.
double careful_norm(const Work& work, const Plan& plan, Squares what, std::size_t start,
                    std::size_t count);

/// The 2-norm of numbers whose squares may overflow: two passes over `for_each`. Of finite numbers
/// it is finite, at most the largest number that there is.
template <class ForEach>
double scaled_norm(ForEach for_each) {
    double largest = 0, sum = 0;
    for_each([&](double x) {
        if (std::isnan(x) || std::abs(x) > largest) largest = std::abs(x);
    });
    if (largest == 0 || !std::isfinite(largest)) return largest;
    for_each([&](double x) { sum += (x / largest) * (x / largest); });
    return std::min(largest * std::sqrt(sum), std::numeric_limits<double>::max());
}

}  // namespace instep
