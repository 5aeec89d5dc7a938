#include "engine/rows.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "engine/dispatch.h"
#include "engine/fetch.h"
#include "engine/summed.h"

namespace instep {
namespace {

/// Sorts by the upper half, of which so many bits are in use; equals stay in their order.
void sort_by_row(std::vector<std::uint64_t>& named, std::vector<std::uint64_t>& buffer, int bits) {
    constexpr int most_bits = 11;
    const int passes = (bits + most_bits - 1) / most_bits;
    for (int pass = 0; pass < passes; ++pass) {
        const int width = (bits + passes - 1) / passes, shift = 32 + pass * width;
        const std::uint64_t mask = (std::uint64_t{1} << width) - 1;
        std::array<std::uint32_t, (1 << most_bits) + 1> starts{};
        for (const std::uint64_t each : named) ++starts[(each >> shift & mask) + 1];
        for (std::size_t digit = 1; digit <= mask; ++digit) starts[digit] += starts[digit - 1];
        for (const std::uint64_t each : named) buffer[starts[each >> shift & mask]++] = each;
        named.swap(buffer);
    }
}

}  // namespace

void Rows::reserve(std::size_t positions) {
    named_.clear();
    named_.reserve(positions);
}

void Rows::sort() {
    const std::size_t count = named_.size();
    ids_.resize(count);
    firsts_.resize(count + 1);
    if (!std::is_sorted(named_.begin(), named_.end())) {
        buffer_.resize(count);
        std::uint64_t all = 0;
        for (const std::uint64_t each : named_) all |= each;
        sort_by_row(named_, buffer_, static_cast<int>(std::bit_width(all >> 32)));
    }
    std::size_t rows = 0;
    for (std::size_t place = 0; place < count; ++place) {
        const auto row = static_cast<std::uint32_t>(named_[place] >> 32);
        // No branch: whether a row is named again is hard to predict.
        const bool is_new = rows == 0 || ids_[rows - 1] != row;
        ids_[rows] = row;
        firsts_[rows] = static_cast<std::uint32_t>(place);
        rows += is_new;
    }
    ids_.resize(rows);
    firsts_[rows] = static_cast<std::uint32_t>(count);
}

std::size_t Rows::find(std::size_t row) const {
    return static_cast<std::size_t>(std::lower_bound(ids_.begin(), ids_.end(), row) - ids_.begin());
}

void Rows::sum(std::size_t k, std::size_t first, std::size_t count, Precision precision,
               void* to) const {
    const Copy copy = unit(precision).gather[static_cast<int>(format)];
    const auto item = static_cast<std::ptrdiff_t>(itemsize(format));
    const auto to_item = static_cast<std::ptrdiff_t>(itemsize(format_of(precision)));
    const auto offset = static_cast<std::ptrdiff_t>(first) * item;
    copy(at(firsts_[k]) + offset, item, static_cast<char*>(to), to_item, count);
    for (std::size_t place = firsts_[k] + 1; place < firsts_[k + 1]; ++place) {
        if (place + ahead < firsts_[k + 1]) fetch_position(place + ahead);
        add_elements(at(place) + offset, format, count, precision, to);
    }
    divide_elements(count, precision, divisor, to);
}

void Rows::gather(std::size_t start, std::size_t count, Precision precision, void* buffer) const {
    const std::size_t item = itemsize(format_of(precision)), end = start + count;
    std::memset(buffer, 0, count * item);
    if (length == 0) return;
    for (std::size_t k = find(start / length); k < ids_.size(); ++k) {
        const std::size_t row = ids_[k] * length;
        if (row >= end) return;
        const std::size_t from = std::max(start, row), to = std::min(end, row + length);
        sum(k, from - row, to - from, precision,
            static_cast<char*>(buffer) + (from - start) * item);
    }
}

void Rows::fetch(std::size_t k) const {
    const std::size_t end = std::min<std::size_t>(firsts_[k + 1], firsts_[k] + ahead);
    for (std::size_t place = firsts_[k]; place < end; ++place) fetch_position(place);
}

void Rows::fetch_position(std::size_t place) const {
    constexpr std::size_t most_bytes = 512;  // the processor goes on by itself
    instep::fetch(at(place), std::min(length * itemsize(format), most_bytes));
}

}  // namespace instep
