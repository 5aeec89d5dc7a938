// Memory that is read soon, fetched into the cache.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#include "engine/kernels.h"

namespace instep {

inline constexpr std::ptrdiff_t cache_line = 64;

/// The line at an address.
inline void fetch_line(const void* at) {
    __builtin_prefetch(at);
    // GCC takes functions that only fetch for ones without effect, and leaves out their calls.
    asm volatile("");
}

/// The lines of so many bytes.
inline void fetch(const void* first, std::size_t bytes) {
    for (std::size_t byte = 0; byte < bytes; byte += cache_line)
        fetch_line(static_cast<const char*>(first) + byte);
}

/// The lines of so many elements, a stride of bytes apart, of the next tile: they arrive while a
/// kernel is at work on this one.
inline void fetch_next_tile(const char* from, std::ptrdiff_t stride, std::size_t count) {
    const auto elements = static_cast<std::ptrdiff_t>(count);
    const std::ptrdiff_t width = std::abs(stride), step = std::max(width, cache_line);
    from += stride * static_cast<std::ptrdiff_t>(tile_elements);
    for (std::ptrdiff_t at = 0; at < width * elements; at += step)
        fetch_line(stride < 0 ? from - at : from + at);
}

}  // namespace instep
