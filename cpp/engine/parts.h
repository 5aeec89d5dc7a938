// Slots that are kept in parts: arrays that have some of the parameter's axes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "engine/kernels.h"
#include "engine/stream.h"

namespace instep {

inline constexpr std::size_t max_axes = 64;  // NumPy's own limit, and thereby that of SM3's parts

struct Plan;
struct Work;

/// What a step's kernels see of one array's parts, and what its elements tell them.
///
/// An array is folded in chunks: pieces of its outermost axis, whose borders depend on its shape
/// alone. Parts that have that axis have cells of their own for each chunk; of the others every
/// chunk has all of the cells, and they are put together in the order of the chunks.
class SeenParts {
public:
    SeenParts(const Layout& layout, const PartKernels& kernels);

    /// Reads the parts.
    void read();
    /// Writes what elements [start, start + count) see of them.
    void combine(std::size_t start, std::size_t count, void* to) const;

    /// Whether kernels are best called for one stretch along the innermost axis at a time, along
    /// which one part has a cell for each element, and the others have one for all.
    bool has_long_rows() const { return long_row_ != 0; }
    /// Their length; zero: they are not.
    std::size_t long_row() const { return long_row_; }
    /// Calls visit(offset, length, cells of that part, what the others come to) for the stretches
    /// of elements [start, start + count).
    template <class Visit>
    void for_each_row(std::size_t start, std::size_t count, Visit visit);

    std::size_t chunk_elements() const { return chunk_rows_ * row_; }
    /// Lets the elements of a chunk tell.
    void fold(const Work& work, const Plan& plan, std::size_t chunk, std::size_t bytes_ahead);
    /// Writes what parts become of what all chunks told. From now on kernels see that of it which
    /// the rule shows.
    void renew(const Plan& plan);

private:
    struct Cells {
        const Part* part;
        std::size_t seen, told;  ///< where its cells begin; those of the first chunk
        bool has_outermost;
        bool has_innermost;
    };
    /// Calls run(offset, length, cells) for the stretches along the innermost axis that elements
    /// [start, start + count) consist of, with the index of the first one's cell in each part.
    template <class Run>
    void for_each_run(std::size_t start, std::size_t count, Run run) const;
    char* seen(std::size_t cell) { return reinterpret_cast<char*>(seen_.data()) + cell * item_; }
    const char* seen(std::size_t cell) const {
        return reinterpret_cast<const char*>(seen_.data()) + cell * item_;
    }

    const Layout& layout_;
    const PartKernels& kernels_;
    std::size_t item_;
    std::size_t row_;         ///< elements for each index along the outermost axis
    std::size_t chunk_rows_;  ///< indices along it
    std::size_t chunk_count_;
    std::size_t long_row_;
    std::vector<Cells> cells_;  ///< of each part
    std::vector<double> seen_;  ///< in the array's precision
    std::vector<double> told_;
};

template <class Run>
void SeenParts::for_each_run(std::size_t start, std::size_t count, Run run) const {
    const std::vector<std::ptrdiff_t>& extents = layout_.shape.extents;
    std::array<std::size_t, max_axes> index, first;
    const std::size_t axes = extents.size();
    std::fill_n(first.begin(), cells_.size(), 0);
    for (std::size_t axis = axes; axis-- > 0;) {
        const auto extent = static_cast<std::size_t>(extents[axis]);
        index[axis] = start % extent;
        start /= extent;
        for (std::size_t k = 0; k < cells_.size(); ++k)
            first[k] += index[axis] * static_cast<std::size_t>(cells_[k].part->steps[axis]);
    }
    const auto move = [&](std::size_t axis, std::size_t by) {
        index[axis] += by;
        for (std::size_t k = 0; k < cells_.size(); ++k)
            first[k] += by * static_cast<std::size_t>(cells_[k].part->steps[axis]);
    };
    for (std::size_t done = 0; done < count;) {
        if (axes == 0) return run(done, count, first);
        const auto inner = static_cast<std::size_t>(extents[axes - 1]);
        const std::size_t length = std::min(count - done, inner - index[axes - 1]);
        run(done, length, first);
        done += length;
        move(axes - 1, length);
        for (std::size_t axis = axes - 1;
             axis > 0 && index[axis] == static_cast<std::size_t>(extents[axis]); --axis) {
            move(axis, 0 - index[axis]);
            move(axis - 1, 1);
        }
    }
}

template <class Visit>
void SeenParts::for_each_row(std::size_t start, std::size_t count, Visit visit) {
    for_each_run(start, count, [&](std::size_t offset, std::size_t length, const auto& first) {
        std::array<const void*, max_axes> all;
        std::size_t all_count = 0;
        void* each = nullptr;
        for (std::size_t k = 0; k < cells_.size(); ++k) {
            char* const cell = seen(cells_[k].seen + first[k]);
            if (cells_[k].has_innermost)
                each = cell;
            else
                all[all_count++] = cell;
        }
        double common;  // or a float
        kernels_.combine(nullptr, 0, all.data(), static_cast<int>(all_count), &common, 1);
        visit(offset, length, each, &common);
    });
}

}  // namespace instep
