// Elements of any stride into or out of a buffer.
#pragma once

#include "kernels/update.h"

namespace instep::INSTEP_LEVEL {

/// Copies elements whose stride, in elements, the compiler knows: vector shuffles, for small ones.
template <std::ptrdiff_t stride, class Real, class From, class To>
INSTEP_INLINE void copy_with_stride(const char* from, char* to, std::size_t count) {
    const From* const source = reinterpret_cast<const From*>(from);
    To* const target = reinterpret_cast<To*>(to);
    std::size_t i = 0;
    if constexpr (stride == 1) {
        using V = Vector<Real>;
        constexpr std::size_t lanes = sizeof(V) / sizeof(Real);
        if constexpr (std::is_same_v<V, Floats> && !std::is_arithmetic_v<To>)
            for (; i + 2 * lanes <= count; i += 2 * lanes)
                write_two(target + i, read<V>(source + i), read<V>(source + i + lanes));
        for (; i + lanes <= count; i += lanes) write(target + i, read<V>(source + i));
    }
    for (; i < count; ++i)
        write_one(target + i, read_one<Real>(source + static_cast<std::ptrdiff_t>(i) * stride));
}

/// Copies and converts `count` elements by way of Real; strides in bytes.
template <class Real, class From, class To>
static void copy(const char* from, std::ptrdiff_t from_stride, char* to, std::ptrdiff_t to_stride,
                 std::size_t count) {
    constexpr std::ptrdiff_t from_size = sizeof(From), to_size = sizeof(To);
    if (to_stride == to_size) {
        if (from_stride == from_size) return copy_with_stride<1, Real, From, To>(from, to, count);
        if (from_stride == -from_size) return copy_with_stride<-1, Real, From, To>(from, to, count);
        if (from_stride == 2 * from_size)
            return copy_with_stride<2, Real, From, To>(from, to, count);
    }
    const auto one = [&]() INSTEP_INLINE_LAMBDA {
        write_one(reinterpret_cast<To*>(to), read_one<Real>(reinterpret_cast<const From*>(from)));
        from += from_stride;
        to += to_stride;
    };
    for (; count >= 4; count -= 4) one(), one(), one(), one();
    for (; count > 0; --count) one();
}

/// Copies `rows` times `count` elements to a buffer with room for `row_length` in each row.
template <class From, class To>
static void transpose(const char* from, std::ptrdiff_t row_stride, std::ptrdiff_t column_stride,
                      void* to, std::size_t row_length, std::size_t rows, std::size_t count) {
    constexpr std::ptrdiff_t ahead = 16;  // columns, each on lines and often on a page of its own
    typedef To Quad __attribute__((vector_size(4 * sizeof(To))));
    To* const target = static_cast<To*>(to);
    const auto fetch_column = [&](const char* column) INSTEP_INLINE_LAMBDA {
        for (std::size_t row = 0; row < rows; row += 64 / sizeof(From))
            __builtin_prefetch(column + ahead * column_stride +
                               static_cast<std::ptrdiff_t>(row) * row_stride);
    };
    std::size_t column = 0;
    const bool adjacent = row_stride == sizeof(From);
    for (; adjacent && column + 4 <= count; column += 4, from += 4 * column_stride) {
        for (int k = 0; k < 4; ++k) fetch_column(from + k * column_stride);
        std::size_t row = 0;
        for (; row + 4 <= rows; row += 4) {
            Quad in[4];
            for (int k = 0; k < 4; ++k)
                in[k] = read<Quad>(reinterpret_cast<const From*>(from + k * column_stride) + row);
            const Quad low0 = __builtin_shufflevector(in[0], in[1], 0, 4, 1, 5);
            const Quad low1 = __builtin_shufflevector(in[2], in[3], 0, 4, 1, 5);
            const Quad high0 = __builtin_shufflevector(in[0], in[1], 2, 6, 3, 7);
            const Quad high1 = __builtin_shufflevector(in[2], in[3], 2, 6, 3, 7);
            const Quad out[4] = {__builtin_shufflevector(low0, low1, 0, 1, 4, 5),
                                 __builtin_shufflevector(low0, low1, 2, 3, 6, 7),
                                 __builtin_shufflevector(high0, high1, 0, 1, 4, 5),
                                 __builtin_shufflevector(high0, high1, 2, 3, 6, 7)};
            for (int k = 0; k < 4; ++k)
                __builtin_memcpy(target + (row + static_cast<std::size_t>(k)) * row_length + column,
                                 &out[k], sizeof out[k]);
        }
        for (; row < rows; ++row)
            for (int k = 0; k < 4; ++k)
                target[row * row_length + column + static_cast<std::size_t>(k)] =
                    read_one<To>(reinterpret_cast<const From*>(from + k * column_stride) + row);
    }
    for (; column < count; ++column, from += column_stride) {
        fetch_column(from);
        for (std::size_t row = 0; row < rows; ++row)
            target[row * row_length + column] = read_one<To>(reinterpret_cast<const From*>(
                from + static_cast<std::ptrdiff_t>(row) * row_stride));
    }
}

}  // namespace instep::INSTEP_LEVEL
