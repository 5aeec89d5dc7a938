// Gradients that are sums of others.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/kernels.h"

namespace instep {

/// Adds contiguous elements of any format to a buffer, as kernels of a precision compute.
void add_elements(const char* from, Format format, std::size_t count, Precision precision,
                  void* to);

/// Divides elements of a buffer.
void divide_elements(std::size_t count, Precision precision, double by, void* to);

/// A gradient that is the sum of several, in their order, over a divisor. Of their elements some
/// are in memory at a time.
struct Summed {
    std::vector<const char*> sources;  ///< where the first element is, or would be
    double divisor = 1;

    /// Elements [start, start + count) into a buffer, for kernels of a precision.
    void gather(Format format, std::size_t start, std::size_t count, Precision precision,
                void* buffer) const;
};

}  // namespace instep
