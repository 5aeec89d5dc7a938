#include "engine/stream.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "engine/dispatch.h"

namespace instep {
namespace {

constexpr std::size_t max_axes = 64;  // NumPy's own limit

/// Calls run(first, stride, length) for the stretches along the innermost axis that elements
/// [start, start + count) consist of.
template <class Run>
void for_each_run(const Shape& shape, const Stream& stream, std::size_t start, std::size_t count,
                  Run run) {
    if (stream.contiguous()) {
        const auto step = static_cast<std::ptrdiff_t>(itemsize(stream.format));
        run(stream.data + static_cast<std::ptrdiff_t>(start) * step, step, count);
        return;
    }
    const std::size_t axes = shape.extents.size(), inner = axes - 1;
    std::array<std::ptrdiff_t, max_axes> index;
    char* at = stream.data;
    for (std::size_t axis = axes; axis-- > 0;) {
        const auto extent = static_cast<std::size_t>(shape.extents[axis]);
        index[axis] = static_cast<std::ptrdiff_t>(start % extent);
        start /= extent;
        at += index[axis] * stream.strides[axis];
    }
    while (count > 0) {
        const std::size_t length =
            std::min(count, static_cast<std::size_t>(shape.extents[inner] - index[inner]));
        run(at, stream.strides[inner], length);
        count -= length;
        index[inner] += static_cast<std::ptrdiff_t>(length);
        at += static_cast<std::ptrdiff_t>(length) * stream.strides[inner];
        for (std::size_t axis = inner; axis > 0 && index[axis] == shape.extents[axis]; --axis) {
            at -= index[axis] * stream.strides[axis];
            index[axis] = 0;
            ++index[axis - 1];
            at += stream.strides[axis - 1];
        }
    }
}

}  // namespace

void gather(const Shape& shape, const Stream& from, std::size_t start, std::size_t count,
            Precision to, void* buffer) {
    const Copy copy = unit(to).gather[static_cast<int>(from.format)];
    const auto item = static_cast<std::ptrdiff_t>(itemsize(format_of(to)));
    char* at = static_cast<char*>(buffer);
    for_each_run(shape, from, start, count,
                 [&](const char* run, std::ptrdiff_t stride, std::size_t length) {
                     copy(run, stride, at, item, length);
                     at += static_cast<std::ptrdiff_t>(length) * item;
                 });
}

void scatter(const Shape& shape, const Stream& to, std::size_t start, std::size_t count,
             Precision from, const void* buffer) {
    const Copy copy = unit(from).scatter[static_cast<int>(to.format)];
    const auto item = static_cast<std::ptrdiff_t>(itemsize(format_of(from)));
    const char* at = static_cast<const char*>(buffer);
    for_each_run(shape, to, start, count,
                 [&](char* run, std::ptrdiff_t stride, std::size_t length) {
                     copy(at, item, run, stride, length);
                     at += static_cast<std::ptrdiff_t>(length) * item;
                 });
}

void exchange(const Layout& layout, StreamIndex one, StreamIndex other) noexcept {
    alignas(double) char buffers[2][tile_elements * sizeof(double)];
    const Stream &a = layout.streams[one], &b = layout.streams[other];
    for (std::size_t done = 0; done < layout.size; done += tile_elements) {
        const std::size_t count = std::min(tile_elements, layout.size - done);
        gather(layout.shape, a, done, count, layout.precision, buffers[0]);
        gather(layout.shape, b, done, count, layout.precision, buffers[1]);
        scatter(layout.shape, a, done, count, layout.precision, buffers[1]);
        scatter(layout.shape, b, done, count, layout.precision, buffers[0]);
    }
}

Transposed::Transposed(const Shape& shape, const Stream& stream) {
    if (stream.contiguous() || shape.extents.size() < 2) return;
    constexpr std::ptrdiff_t line = 64;
    const std::size_t inner = shape.extents.size() - 1;
    std::size_t axis = inner;
    for (std::size_t other = 0; other < inner; ++other)
        if (std::abs(stream.strides[other]) < std::abs(stream.strides[axis])) axis = other;
    if (axis == inner || std::abs(stream.strides[axis]) >= line ||
        std::abs(stream.strides[inner]) < line)
        return;
    axis_ = axis;
    length = 1;
    for (std::size_t other = axis + 1; other <= inner; ++other)
        length *= static_cast<std::size_t>(shape.extents[other]);
}

std::size_t Transposed::together(const Shape& shape, std::size_t row) const {
    const auto extent = static_cast<std::size_t>(shape.extents[axis_]);
    return std::min<std::size_t>(most, extent - row % extent);
}

void Transposed::gather(const Shape& shape, const Stream& from, std::size_t row, std::size_t rows,
                        std::size_t column, std::size_t count, Precision to, void* buffer) const {
    const Transpose transpose = unit(to).transpose[static_cast<int>(from.format)];
    char* at = static_cast<char*>(buffer);
    for_each_run(shape, from, row * length + column, count,
                 [&](const char* run, std::ptrdiff_t stride, std::size_t columns) {
                     transpose(run, from.strides[axis_], stride, at, count, rows, columns);
                     at += columns * itemsize(format_of(to));
                 });
}

}  // namespace instep
