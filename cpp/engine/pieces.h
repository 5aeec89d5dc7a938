// Who works on what: arrays one after the other, cut into pieces that threads take.
#pragma once

#include <algorithm>
#include <cstddef>

namespace instep {

/// One of so many pieces.
struct Piece {
    std::size_t index = 0, count = 1;
};

/// Pieces for each thread, unless they would be too small to be worth the taking, or so large that
/// the last one, which somebody else may be at, is waited for too long.
inline constexpr std::size_t pieces_for_each = 16;

/// Into how many pieces work over so many bytes is cut for so many threads.
inline std::size_t piece_count(std::size_t bytes, int threads) {
    constexpr std::size_t least = 128 * 1024, most = 2 * 1024 * 1024;
    const std::size_t wanted = bytes / (pieces_for_each * static_cast<std::size_t>(threads));
    return std::max<std::size_t>(bytes / std::clamp(wanted, least, most), 1);
}
/// Whether one thread alone has at most a few milliseconds of it: less than the turn of a thread
/// that the system lets run.
inline bool is_short(std::size_t pieces) {
    return pieces <= 2 * pieces_for_each;
}

/// Some of all elements, counted from the first array's first one.
struct Span {
    std::size_t first, last;

    std::size_t elements() const { return last - first; }
};

/// Calls visit(k, first, last) for a piece's elements of each of `arrays` arrays: an equal part of
/// those of a span, where start_of(k) lie before array k, and start_of(arrays) in all; with borders
/// at multiples of unit_of(k) in each array.
template <class Start, class Unit, class Visit>
void for_each_in(Piece piece, Span span, std::size_t arrays, Start start_of, Unit unit_of,
                 Visit visit) {
    const auto border = [&](std::size_t index) {
        return index == piece.count
                   ? span.last
                   : span.first + static_cast<std::size_t>(static_cast<double>(span.elements()) *
                                                           static_cast<double>(index) /
                                                           static_cast<double>(piece.count));
    };
    const std::size_t begin = border(piece.index), end = border(piece.index + 1);
    std::size_t k = 0;
    for (std::size_t above = arrays; k + 1 < above;) {  // the last array that starts at or before
        const std::size_t middle = (k + above) / 2;
        (start_of(middle) <= begin ? k : above) = middle;
    }
    for (std::size_t start = start_of(k); k < arrays && start < end; ++k) {
        const std::size_t next = start_of(k + 1), size = next - start;
        const auto within = [&](std::size_t element) {
            if (element <= start) return std::size_t{0};
            if (element >= next) return size;
            const std::size_t unit = unit_of(k);
            return std::min((element - start + unit - 1) / unit * unit, size);
        };
        const std::size_t first = within(begin), last = within(end);
        if (first < last) visit(k, first, last);
        start = next;
    }
}

}  // namespace instep
