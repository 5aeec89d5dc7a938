// Who works on what.
#pragma once

#include <algorithm>
#include <cstddef>

namespace instep {

/// Which of so many threads one is.
struct Member {
    int thread, team;
};

/// Calls visit(k, first, last) for a thread's elements of each of `count` arrays: an equal share of
/// all `elements`, with borders at multiples of unit_of(k) in each array, which has size_of(k).
template <class Size, class Unit, class Visit>
void for_each_share(Member member, std::size_t count, std::size_t elements, Size size_of,
                    Unit unit_of, Visit visit) {
    const auto border = [&](int t) {
        return t == member.team
                   ? elements
                   : static_cast<std::size_t>(static_cast<double>(elements) * t / member.team);
    };
    const std::size_t begin = border(member.thread), end = border(member.thread + 1);
    for (std::size_t k = 0, start = 0; k < count && start < end; ++k) {
        const std::size_t size = size_of(k);
        const auto within = [&](std::size_t element) {
            if (element <= start) return std::size_t{0};
            const std::size_t passed = element - start;
            if (passed >= size) return size;
            const std::size_t unit = unit_of(k);
            return std::min((passed + unit - 1) / unit * unit, size);
        };
        const std::size_t first = within(begin), last = within(end);
        if (first < last) visit(k, first, last);
        start += size;
    }
}

}  // namespace instep
