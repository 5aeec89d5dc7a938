// The machine's limit, for benchmarks: an update's memory traffic without its mathematics.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/kernels.h"

namespace instep {

/// Contiguous arrays of one size, to each of which the gradient is added.
struct Touched {
    const char* grad;
    Format grad_format;
    std::vector<char*> arrays;  ///< at most `max_touched`
    Precision precision;        ///< as which they are stored
    std::size_t count;
};

/// Touches all of them, several times over, on as many threads as a step would use, and fetches so
/// many bytes ahead.
void touch_all(const std::vector<Touched>& all, std::size_t bytes_ahead, std::int64_t repeats);

}  // namespace instep
