// Arrays of any layout as streams of elements, and their way through small buffers.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "engine/kernels.h"
#include "engine/rows.h"
#include "engine/summed.h"

namespace instep {

/// The axes of an array in the order in which its elements are visited: outermost first.
struct Shape {
    std::vector<std::ptrdiff_t> extents;
};

/// One array's memory, visited in the order of a Shape.
struct Stream {
    char* data = nullptr;             ///< null: there is no such array
    Format format = Format::float32;  ///< where there is no coding
    /// Bytes between neighbours along each axis of the shape; null where elements are contiguous
    /// in the order in which they are visited.
    const std::ptrdiff_t* strides = nullptr;
    /// Whether elements that are not contiguous in that order fill the memory from `data` on in
    /// another one.
    bool dense = false;
    Coding coding = Coding::none;
    char* companion = nullptr;  ///< what the coding keeps beside
    /// Between neighbours of it along each axis; null where it lies in the order of visits.
    const std::ptrdiff_t* companion_strides = nullptr;

    /// A gradient of some rows, whose values these are; zero elsewhere.
    const Rows* rows = nullptr;
    /// A gradient that is made of others; `data` only tells that there is one.
    const Summed* summed = nullptr;

    bool contiguous() const { return !strides && !rows && !summed; }
    std::size_t item() const {
        return coding == Coding::none ? itemsize(format) : info_of(coding).itemsize;
    }
    /// Of so many elements, with what is kept beside them.
    std::size_t bytes(std::size_t elements) const {
        std::size_t beside = 0;
        if (rows) return rows->positions() * rows->length * item();
        if (coding != Coding::none) {
            const CodingInfo& info = info_of(coding);
            beside = (elements + info.elements - 1) / info.elements * info.companion_bytes;
        }
        return elements * item() + beside;
    }
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
    /// Of an array that others have other parts of: how many elements are before these, a multiple
    /// of `block_elements`, and how many all have.
    std::size_t first_element = 0, whole_size = 0;

    void set(int index, const Stream& stream) {
        streams[index] = stream;
        block.data[index] = stream.data;
        if (!stream.data) return;
        present |= bit(index);
        if (!stream.contiguous() || stream.coding != Coding::none ||
            stream.format != format_of(precision))
            buffered |= bit(index);
        if (stream.coding == Coding::none) return;
        has_blocks |= info_of(stream.coding).elements > 1;
        is_random |= info_of(stream.coding).is_random;
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

    /// A rounded copy of the parameter, written in each update; may be missing.
    Stream copy;

    /// That slot is kept in these parts; kernels see it through buffers.
    void set_parts(int slot, std::vector<Part> its_parts) {
        parts = std::move(its_parts);
        parts_stream = first_slot + slot;
        present |= bit(parts_stream);
        buffered |= bit(parts_stream);
    }
    std::vector<Part> parts;
    int parts_stream = -1;  ///< none

    /// Between neighbours along each axis of the shape, in C order; empty: as visited.
    std::vector<std::ptrdiff_t> steps;
    /// Elements of each row, the parts along the array's first axis, where those are visited one
    /// after the other; else 0.
    std::size_t row_length = 0;
    std::size_t rows() const { return row_length ? size / row_length : 0; }
    /// Whether a slot is kept in a single part, with a number for each row.
    bool has_row_numbers() const {
        return parts.size() == 1 && row_length && parts[0].size == rows() &&
               (parts[0].steps.empty() || rows() <= 1 || parts[0].steps[0] == 1);
    }
    bool has_blocks = false;  ///< some stream is coded in blocks, and can't be visited by rows
    bool is_random = false;   ///< random bits decide on some stream's roundings

    /// Whether the parameter holds all digits of what kernels compute.
    bool is_exact() const {
        const Stream& param = streams[param_stream];
        if (param.coding == Coding::none) return param.format == format_of(precision);
        return info_of(param.coding).companion_bytes > 0;
    }
    /// How its streams are kept, where kernels can convert all of them in registers.
    std::optional<Coded> coded;
    /// Finds that out; call it when all are set.
    void find_coded();

    // The same as kernels see it.
    Block block{};
    unsigned present = 0;   ///< the streams that there are
    unsigned buffered = 0;  ///< those that kernels can't read as they are
};

/// The random bits that decide on roundings of one array's elements in one update: made of a key,
/// and of where an element stands when they are counted in C order, whatever their layout. All of
/// the array's streams share them.
class Noise {
public:
    /// None are made where the layout needs none.
    Noise(const Layout& layout, std::uint32_t key);
    static std::uint32_t key_of(std::int64_t seed, std::int64_t update, std::size_t array);

    /// Those of a tile's elements, until the next call.
    const std::uint16_t* at(std::size_t start, std::size_t count);

private:
    std::uint32_t key_;
    std::size_t first_;             ///< element of the whole array
    const Shape* shape_ = nullptr;  ///< null: nothing is random
    const std::ptrdiff_t* steps_ = nullptr;
    alignas(64) std::uint16_t bits_[tile_elements];
};

/// Copies elements [start, start + count) of a stream into a buffer, for kernels of a precision.
void gather(const Shape& shape, const Stream& from, std::size_t start, std::size_t count,
            Precision to, void* buffer);

/// Copies them back; of blocks, all of their elements. Random bits are there where there is a
/// coding.
void scatter(const Shape& shape, const Stream& to, std::size_t start, std::size_t count,
             Precision from, const void* buffer, const std::uint16_t* random_bits = nullptr);

/// Makes elements [start, start + count) zero, of a stream without a coding.
void clear(const Shape& shape, const Stream& stream, std::size_t start, std::size_t count,
           Precision precision) noexcept;

/// Copies all numbers of a stream to another one, each as the nearest that it holds. The shape does
/// not tell of arrays without elements, so `size` does.
void copy_numbers(const Shape& shape, std::size_t size, const Stream& from,
                  const Stream& to) noexcept;

/// Copies all elements of a stream to another one of the same format or coding as they are, but for
/// what is kept beside them.
void copy_items(const Shape& shape, std::size_t size, const Stream& from,
                const Stream& to) noexcept;

/// Exchanges the elements of two of a parameter's arrays, each the nearest that the other holds.
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
