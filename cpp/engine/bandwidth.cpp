#include "engine/bandwidth.h"

#include "engine/crew.h"
#include "engine/dispatch.h"
#include "engine/float_mode.h"
#include "engine/threads.h"

namespace instep {
namespace {

constexpr std::size_t unit_elements = 64;  // threads share an array at multiples of it

void touch_range(const Touched& each, std::size_t first, std::size_t last, std::size_t ahead) {
    void* at[max_touched];
    for (std::size_t k = 0; k < each.arrays.size(); ++k)
        at[k] = each.arrays[k] + first * itemsize(format_of(each.precision));
    const Touch touch =
        unit(each.precision).touch[static_cast<int>(each.grad_format)][each.arrays.size()];
    touch(at, each.grad + first * itemsize(each.grad_format), last - first, ahead);
}

}  // namespace

void touch_all(const std::vector<Touched>& all, std::size_t bytes_ahead, std::int64_t repeats) {
    std::vector<std::size_t> starts{0};
    std::size_t bytes = 0;
    for (const Touched& each : all) {
        starts.push_back(starts.back() + each.count);
        bytes += each.count * (itemsize(each.grad_format) +
                               each.arrays.size() * itemsize(format_of(each.precision)));
    }
    const int threads = threads_for(bytes);
    for (std::int64_t k = 0; k < repeats; ++k)
        for_each_piece(threads, piece_count(bytes, threads), [&](Piece piece, bool) {
            const FlushSubnormals flushing;
            for_each_in(
                piece, {0, starts.back()}, all.size(),
                [&](std::size_t part) { return starts[part]; },
                [](std::size_t) { return unit_elements; },
                [&](std::size_t part, std::size_t first, std::size_t last) {
                    touch_range(all[part], first, last, bytes_ahead);
                });
        });
}

}  // namespace instep
