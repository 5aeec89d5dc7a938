#include "engine/stream.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>

#include "engine/dispatch.h"
#include "engine/fetch.h"

namespace instep {
namespace {

constexpr std::size_t max_axes = 64;  // NumPy's own limit

/// Calls run(first, stride, length) for the stretches along the innermost axis that elements
/// [start, start + count) consist of.
template <class Run>
void for_each_run(const Shape& shape, const Stream& stream, std::size_t start, std::size_t count,
                  Run run) {
    if (stream.contiguous()) {
        const auto step = static_cast<std::ptrdiff_t>(stream.item());
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

/// Copies items of some bytes between an array of any layout and a buffer.
template <class Copy>
void for_each_item(const Shape& shape, const Stream& stream, std::size_t start, std::size_t count,
                   char* buffer, Copy copy) {
    const std::size_t item = stream.item();
    const auto copy_run = [&]<std::size_t size>(char* run, std::ptrdiff_t stride,
                                                std::size_t length,
                                                std::integral_constant<std::size_t, size> bytes) {
        for (; length > 0; --length, run += stride, buffer += size) copy(run, buffer, bytes);
    };
    for_each_run(shape, stream, start, count,
                 [&](char* run, std::ptrdiff_t stride, std::size_t length) {
                     if (item == 1)
                         copy_run(run, stride, length, std::integral_constant<std::size_t, 1>());
                     else if (item == 2)
                         copy_run(run, stride, length, std::integral_constant<std::size_t, 2>());
                     else
                         copy_run(run, stride, length, std::integral_constant<std::size_t, 4>());
                 });
}
constexpr auto from_array = [](const char* run, char* at, auto size) {
    std::memcpy(at, run, size);
};
constexpr auto to_array = [](char* run, const char* at, auto size) { std::memcpy(run, at, size); };

/// Items of a stream as they are for elements from one on, where they lie one after the other: in
/// memory, or else in a buffer, where `is_read` they are copied to.
struct Items {
    alignas(64) char buffer[tile_elements * sizeof(float)];
    char* at;

    Items(const Shape& shape, const Stream& stream, std::size_t start, std::size_t count,
          bool is_read) {
        at = stream.contiguous() ? stream.data + start * stream.item() : buffer;
        if (is_read && !stream.contiguous())
            for_each_item(shape, stream, start, count, buffer, from_array);
    }
    void write_back(const Shape& shape, const Stream& stream, std::size_t start,
                    std::size_t count) {
        if (!stream.contiguous()) for_each_item(shape, stream, start, count, buffer, to_array);
    }
};

/// What stands beside a stream's elements from one on, which begins a block.
Stream companion_of(const Stream& stream, std::size_t& start, std::size_t& count) {
    const CodingInfo& info = info_of(stream.coding);
    start /= info.elements;
    count = (count + info.elements - 1) / info.elements;
    Stream companion{stream.companion, Format::float32, stream.companion_strides};
    if (info.companion_bytes != sizeof(float)) companion.coding = Coding::remainder;  // as wide
    return companion;
}

/// Elements of a tile, contiguous, to what kernels compute in.
void convert(const void* from, Format from_format, Precision to, void* buffer, std::size_t count) {
    const auto step = static_cast<std::ptrdiff_t>(itemsize(from_format));
    const auto to_step = static_cast<std::ptrdiff_t>(itemsize(format_of(to)));
    unit(to).gather[static_cast<int>(from_format)](static_cast<const char*>(from), step,
                                                   static_cast<char*>(buffer), to_step, count);
}

/// Reads a tile at most of what has a coding.
void decode(const Shape& shape, const Stream& from, std::size_t start, std::size_t count,
            Precision to, void* buffer) {
    const Coder& coder = unit(Precision::float32).coders[static_cast<int>(from.coding)];
    alignas(64) float tile[tile_elements];
    const bool is_direct = to == Precision::float32;
    float* const numbers = is_direct ? static_cast<float*>(buffer) : tile;
    const Items items(shape, from, start, count, true);
    if (from.companion) {
        std::size_t place = start, elements = count;
        const Stream companion = companion_of(from, place, elements);
        const Items beside(shape, companion, place, elements, true);
        coder.decode(items.at, beside.at, count, numbers);
    } else {
        coder.decode(items.at, nullptr, count, numbers);
    }
    if (!is_direct) convert(numbers, Format::float32, to, buffer, count);
}

/// Writes it; random bits are there where the coding needs them.
void encode(const Shape& shape, const Stream& to, std::size_t start, std::size_t count,
            Precision from, const void* buffer, const std::uint16_t* random_bits) {
    const Coder& coder = unit(Precision::float32).coders[static_cast<int>(to.coding)];
    alignas(64) float tile[tile_elements];
    const bool is_direct = from == Precision::float32;
    if (!is_direct) convert(buffer, format_of(from), Precision::float32, tile, count);
    if (!is_direct && to.coding == Coding::positive_float8)
        for (std::size_t k = 0; k < count; ++k)  // what float32 has no number for is no zero
            if (static_cast<const double*>(buffer)[k] > 0)
                tile[k] = std::max(tile[k], std::numeric_limits<float>::min());
    const float* const numbers = is_direct ? static_cast<const float*>(buffer) : tile;
    Items items(shape, to, start, count, false);
    if (to.companion) {
        std::size_t place = start, elements = count;
        const Stream companion = companion_of(to, place, elements);
        Items beside(shape, companion, place, elements, false);
        coder.encode(numbers, items.at, beside.at, count, random_bits);
        beside.write_back(shape, companion, place, elements);
    } else {
        coder.encode(numbers, items.at, nullptr, count, random_bits);
    }
    items.write_back(shape, to, start, count);
}

}  // namespace

std::uint32_t Noise::key_of(std::int64_t seed, std::int64_t update, std::size_t array) {
    // Splitmix64's finish, after each number.
    std::uint64_t x = 0;
    for (const std::uint64_t number :
         {static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(update),
          static_cast<std::uint64_t>(array)}) {
        x += number + 0x9e3779b97f4a7c15;
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
        x = (x ^ x >> 27) * 0x94d049bb133111eb;
        x ^= x >> 31;
    }
    return static_cast<std::uint32_t>(x);
}

Noise::Noise(const Layout& layout, std::uint32_t key) : key_(key), first_(layout.first_element) {
    if (!layout.is_random) return;
    shape_ = &layout.shape;
    steps_ = layout.steps.empty() ? nullptr : layout.steps.data();
}

const std::uint16_t* Noise::at(std::size_t start, std::size_t count) {
    if (!shape_) return bits_;
    const Unit& kernels = unit(Precision::float32);
    if (!steps_) {
        kernels.random_bits(key_, static_cast<std::uint32_t>(first_ + start), 1, count, bits_);
        return bits_;
    }
    char* const first = reinterpret_cast<char*>(bits_);  // not memory: counted in elements
    const Stream places{first, Format::float32, steps_};
    alignas(64) std::uint16_t run_bits[tile_elements];
    std::uint16_t* at = bits_;
    for_each_run(*shape_, places, start, count,
                 [&](const char* place, std::ptrdiff_t step, std::size_t length) {
                     kernels.random_bits(key_, static_cast<std::uint32_t>(place - first),
                                         static_cast<std::uint32_t>(step), length, run_bits);
                     at = std::copy_n(run_bits, length, at);
                 });
    return bits_;
}

void Layout::find_coded() {
    Coded found{};
    bool any = false;
    for (int s = 0; s < stream_count; ++s) {
        const Stream& stream = streams[s];
        found.coding[s] = stream.coding;
        found.companion[s] = stream.companion;
        if (!stream.data) continue;
        const bool is_plain = stream.coding == Coding::none && stream.format == Format::float32;
        const bool is_ours = stream.coding == Coding::stochastic_bfloat16 ||
                             (stream.coding == Coding::remainder && !stream.companion_strides);
        if (!stream.contiguous() || !(is_plain || is_ours)) return;
        any |= is_ours;
    }
    found.is_random = is_random;
    const bool is_float32 = precision == Precision::float32;
    if (any && is_float32 && parts.empty() && (steps.empty() || !is_random)) coded = found;
}

void gather(const Shape& shape, const Stream& from, std::size_t start, std::size_t count,
            Precision to, void* buffer) {
    if (from.rows) return from.rows->gather(start, count, to, buffer);
    if (from.summed) return from.summed->gather(from.format, start, count, to, buffer);
    if (from.coding != Coding::none) return decode(shape, from, start, count, to, buffer);
    const Copy copy = unit(to).gather[static_cast<int>(from.format)];
    const auto item = static_cast<std::ptrdiff_t>(itemsize(format_of(to)));
    char* at = static_cast<char*>(buffer);
    for_each_run(shape, from, start, count,
                 [&](const char* run, std::ptrdiff_t stride, std::size_t length) {
                     fetch_next_tile(run, stride, length);
                     copy(run, stride, at, item, length);
                     at += static_cast<std::ptrdiff_t>(length) * item;
                 });
}

void scatter(const Shape& shape, const Stream& to, std::size_t start, std::size_t count,
             Precision from, const void* buffer, const std::uint16_t* random_bits) {
    if (to.coding != Coding::none)
        return encode(shape, to, start, count, from, buffer, random_bits);
    const Copy copy = unit(from).scatter[static_cast<int>(to.format)];
    const auto item = static_cast<std::ptrdiff_t>(itemsize(format_of(from)));
    const char* at = static_cast<const char*>(buffer);
    for_each_run(shape, to, start, count,
                 [&](char* run, std::ptrdiff_t stride, std::size_t length) {
                     copy(at, item, run, stride, length);
                     at += static_cast<std::ptrdiff_t>(length) * item;
                 });
}

void clear(const Shape& shape, const Stream& stream, std::size_t start, std::size_t count,
           Precision precision) noexcept {
    alignas(64) static constexpr char zeros[tile_elements * sizeof(double)] = {};
    for (const std::size_t end = start + count; start < end; start += tile_elements)
        scatter(shape, stream, start, std::min(tile_elements, end - start), precision, zeros);
}

namespace {

/// In the place of random bits: with half of what is left out, numbers become the nearest ones.
struct Halfway {
    alignas(64) std::uint16_t bits[tile_elements];
    Halfway() { std::fill_n(bits, tile_elements, std::uint16_t{0x8000}); }
};

}  // namespace

void copy_numbers(const Shape& shape, std::size_t size, const Stream& from,
                  const Stream& to) noexcept {
    const Halfway halfway;
    const Precision precision = precision_of(
        from.coding == Coding::none && from.format == Format::float64 ? from.format : to.format);
    alignas(64) char buffer[tile_elements * sizeof(double)];
    for (std::size_t done = 0; done < size; done += tile_elements) {
        const std::size_t count = std::min(tile_elements, size - done);
        gather(shape, from, done, count, precision, buffer);
        scatter(shape, to, done, count, precision, buffer, halfway.bits);
    }
}

void copy_items(const Shape& shape, std::size_t size, const Stream& from,
                const Stream& to) noexcept {
    for (std::size_t done = 0; done < size; done += tile_elements) {
        const std::size_t count = std::min(tile_elements, size - done);
        alignas(64) char buffer[tile_elements * sizeof(float)];
        for_each_item(shape, from, done, count, buffer, from_array);
        for_each_item(shape, to, done, count, buffer, to_array);
    }
}

void exchange(const Layout& layout, StreamIndex one, StreamIndex other) noexcept {
    alignas(64) char buffers[2][tile_elements * sizeof(double)];
    const Stream &a = layout.streams[one], &b = layout.streams[other];
    const Halfway halfway;
    for (std::size_t done = 0; done < layout.size; done += tile_elements) {
        const std::size_t count = std::min(tile_elements, layout.size - done);
        gather(layout.shape, a, done, count, layout.precision, buffers[0]);
        gather(layout.shape, b, done, count, layout.precision, buffers[1]);
        scatter(layout.shape, a, done, count, layout.precision, buffers[1], halfway.bits);
        scatter(layout.shape, b, done, count, layout.precision, buffers[0], halfway.bits);
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
