#include "engine/stream.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace instep {
namespace {

constexpr std::size_t max_axes = 64;  // NumPy's own limit

/// Calls run(first, stride, length) for the stretches along the innermost axis that elements
/// [start, start + count) consist of.
template <class Run>
void for_each_run(const Shape& shape, const Stream& stream, std::size_t start, std::size_t count,
                  Run run) {
    if (stream.contiguous()) {
        const auto step = static_cast<std::ptrdiff_t>(itemsize(stream.dtype));
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

template <class From, class To>
void gather_as(const Shape& shape, const Stream& from, std::size_t start, std::size_t count,
               void* buffer) {
    To* to = static_cast<To*>(buffer);
    for_each_run(shape, from, start, count,
                 [&](const char* at, std::ptrdiff_t stride, std::size_t length) {
                     if (stride == sizeof(From)) {
                         const From* const elements = reinterpret_cast<const From*>(at);
                         for (std::size_t k = 0; k < length; ++k)
                             to[k] = static_cast<To>(elements[k]);
                     } else {
                         for (std::size_t k = 0; k < length; ++k, at += stride)
                             to[k] = static_cast<To>(*reinterpret_cast<const From*>(at));
                     }
                     to += length;
                 });
}

template <class T>
void scatter_as(const Shape& shape, const Stream& to, std::size_t start, std::size_t count,
                const void* buffer) {
    const T* from = static_cast<const T*>(buffer);
    for_each_run(shape, to, start, count, [&](char* at, std::ptrdiff_t stride, std::size_t length) {
        if (stride == sizeof(T)) {
            std::memcpy(at, from, length * sizeof(T));
        } else {
            for (std::size_t k = 0; k < length; ++k, at += stride)
                *reinterpret_cast<T*>(at) = from[k];
        }
        from += length;
    });
}

}  // namespace

void gather(const Shape& shape, const Stream& from, std::size_t start, std::size_t count, Dtype to,
            void* buffer) {
    if (from.dtype == Dtype::float32)
        (to == Dtype::float32 ? gather_as<float, float>
                              : gather_as<float, double>)(shape, from, start, count, buffer);
    else
        (to == Dtype::float32 ? gather_as<double, float>
                              : gather_as<double, double>)(shape, from, start, count, buffer);
}

void scatter(const Shape& shape, const Stream& to, std::size_t start, std::size_t count,
             const void* buffer) {
    (to.dtype == Dtype::float32 ? scatter_as<float> : scatter_as<double>)(shape, to, start, count,
                                                                          buffer);
}

}  // namespace instep
