// Arrays of any layout as streams of elements, and their way through small buffers.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "engine/kernels.h"

namespace instep {

/// The axes of an array in the order in which its elements are visited: outermost first.
struct Shape {
    std::vector<std::ptrdiff_t> extents;

    std::size_t size() const {
        std::size_t product = 1;
        for (const std::ptrdiff_t extent : extents) product *= static_cast<std::size_t>(extent);
        return product;
    }
};

/// One array's memory, visited in the order of a Shape.
struct Stream {
    char* data = nullptr;  ///< null: there is no such array
    Format format = Format::float32;
    /// Bytes between neighbours along each axis of the shape; null where elements are contiguous
    /// in the order in which they are visited.
    const std::ptrdiff_t* strides = nullptr;
    /// Whether elements that are not contiguous in that order fill the memory from `data` on in
    /// another one.
    bool dense = false;

    bool contiguous() const { return strides == nullptr; }
};

/// A state array that has some of the parameter's axes, and is for all elements along the others.
struct Part {
    Shape shape;  ///< its own axes, in the order in which those of the parameter are visited
    Stream stream;
    std::size_t size = 0;
    /// Between neighbours along each axis of the parameter, were its cells one after the other in
    /// the order of its shape; 0 along axes that it lacks.
    std::vector<std::ptrdiff_t> steps;
};

/// The arrays of one parameter as they lie in memory, without its gradient.
struct Layout {
    Shape shape;
    std::size_t size = 0;
    Precision precision = Precision::float32;
    Stream streams[stream_count];

    void set(int index, const Stream& stream) {
        streams[index] = stream;
        block.data[index] = stream.data;
        if (!stream.data) return;
        present |= bit(index);
        if (!stream.contiguous() || stream.format != format_of(precision)) buffered |= bit(index);
    }

    /// Another array like the one that there is.
    void move(int index, char* data) {
        streams[index].data = data;
        block.data[index] = data;
    }

    /// The parameter is read from another array, and written to its own; kernels see it through
    /// buffers.
    void read_param_from(const Stream& other) {
        param_source = other;
        buffered |= bit(param_stream);
    }
    Stream param_source;  ///< may be missing

    /// That slot is kept in these parts; kernels see it through buffers.
    void set_parts(int slot, std::vector<Part> its_parts) {
        parts = std::move(its_parts);
        parts_stream = first_slot + slot;
        present |= bit(parts_stream);
        buffered |= bit(parts_stream);
    }
    std::vector<Part> parts;
    int parts_stream = -1;  ///< none

    // The same as kernels see it.
    Block block{};
    unsigned present = 0;   ///< the streams that there are
    unsigned buffered = 0;  ///< those that kernels can't read as they are
};

/// Copies elements [start, start + count) of a stream into a buffer, for kernels of a precision.
void gather(const Shape& shape, const Stream& from, std::size_t start, std::size_t count,
            Precision to, void* buffer);

/// Copies them back.
void scatter(const Shape& shape, const Stream& to, std::size_t start, std::size_t count,
             Precision from, const void* buffer);

/// Exchanges the elements of two of a parameter's arrays.
void exchange(const Layout& layout, StreamIndex one, StreamIndex other) noexcept;

/// The rows of a shape, along which a stream's elements lie far from each other while those of
/// neighbouring rows share the lines of the cache: a transposed array. Such rows are worth reading
/// several at a time.
class Transposed {
public:
    static constexpr std::size_t most = 32;  ///< rows at a time: two lines of float32

    /// Without rows where the stream's elements are best read in order.
    Transposed(const Shape& shape, const Stream& stream);

    std::size_t length = 0;  ///< elements of a row; 0: there are no rows
    /// How many rows from this one on are neighbours, `most` at most.
    std::size_t together(const Shape& shape, std::size_t row) const;
    /// Copies some columns of some neighbouring rows to a buffer, row by row.
    void gather(const Shape& shape, const Stream& from, std::size_t row, std::size_t rows,
                std::size_t column, std::size_t count, Precision to, void* buffer) const;

private:
    std::size_t axis_ = 0;  ///< along which rows are neighbours
};

}  // namespace instep
