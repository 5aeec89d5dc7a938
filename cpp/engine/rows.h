// Gradients of some of an array's rows, and what the other rows miss meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/kernels.h"

namespace instep {

/// A gradient of the rows that are named, each at its positions: some rows by several, whose values
/// are added up in their order. Rows are the parts of an array along its first axis.
class Rows {
public:
    /// Ids and positions are kept in 32 bits.
    static constexpr std::size_t most = 0xffffffff;

    std::size_t length = 0;  ///< elements of a row

    // The values, of all positions one after the other, each a row of contiguous elements.
    char* values = nullptr;
    Format format = Format::float32;
    std::ptrdiff_t stride = 0;  ///< bytes from one position to the next
    double divisor = 1;         ///< of the sums

    /// Begins anew, with room for so many positions.
    void reserve(std::size_t positions);
    /// The row at the next position. There is room.
    void add(std::size_t row) noexcept { named_.push_back(row << 32 | named_.size()); }
    /// Puts rows in their order; after the last position.
    void sort();

    std::size_t positions() const { return named_.size(); }
    /// The rows named, ascending, each once.
    const std::vector<std::uint32_t>& ids() const { return ids_; }
    /// The first of them from that row on.
    std::size_t find(std::size_t row) const;

    /// Where the values of the k-th row lie, if they are as they are at a single position.
    char* single(std::size_t k) const {
        return firsts_[k + 1] - firsts_[k] == 1 && divisor == 1 ? at(firsts_[k]) : nullptr;
    }
    /// Their sum over the divisor for elements [first, first + count) of that row, as kernels of a
    /// precision compute.
    void sum(std::size_t k, std::size_t first, std::size_t count, Precision precision,
             void* to) const;
    /// The same for elements of the whole array, zero in rows that are not named.
    void gather(std::size_t start, std::size_t count, Precision precision, void* buffer) const;
    /// Fetches the first of the k-th row's values into the cache.
    void fetch(std::size_t k) const;

private:
    static constexpr std::size_t ahead = 4;  ///< positions that are fetched while one is added

    void fetch_position(std::size_t place) const;
    char* at(std::size_t place) const {
        return values + static_cast<std::ptrdiff_t>(named_[place] & most) * stride;
    }

    std::vector<std::uint64_t> named_, buffer_;  ///< row << 32 | position
    std::vector<std::uint32_t> ids_, firsts_;    ///< of each row, its first place in `named_`
};

}  // namespace instep
