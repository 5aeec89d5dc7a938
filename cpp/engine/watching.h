// What users look at of a step: norms of gradients, updates and parameters, taken on its own way
// over memory.
#pragma once

#include <cstdint>

#include "engine/norms.h"
#include "engine/work.h"

namespace instep {

/// Sets of what is watched have a bit for each.
enum Watch : unsigned {
    watch_grad_norm = 1,
    watch_update_norm = 2,
    watch_param_norm = 4,
    watch_nonfinite = 8,
};

/// What was seen of an array; negative: nothing yet.
struct Watched {
    double grad_norm = -1, update_norm = -1, param_norm = -1;
    double nonfinite = -1;  ///< elements of its gradient
};

/// What a block adds to it: sums of squares, and how many elements were not finite. Where the sum
/// of the gradient's is infinite, it is negative, the norm.
struct WatchedSums {
    double grad = 0, update = 0, param = 0, nonfinite = 0;
};

/// Runs a kernel over elements [start, start + count) of an array, `block_elements` at most, and
/// returns what is watched of them.
WatchedSums run_watched(const Operation& operation, const Work& work, const Plan& plan,
                        std::size_t start, std::size_t count, const Ahead& ahead,
                        unsigned watch) noexcept;

/// How many of these elements of a gradient are not finite.
double count_nonfinite(const Work& work, const Plan& plan, std::size_t start,
                       std::size_t count) noexcept;

}  // namespace instep
