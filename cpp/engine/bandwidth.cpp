#include "engine/bandwidth.h"

#include "engine/dispatch.h"
#include "engine/float_mode.h"
#include "engine/share.h"
#include "engine/threads.h"

namespace instep {
namespace {

constexpr std::size_t unit_elements = 64;  // threads share an array at multiples of it

void touch_range(const Touched& each, std::size_t first, std::size_t last) {
    void* at[max_touched];
    for (std::size_t k = 0; k < each.arrays.size(); ++k)
        at[k] = each.arrays[k] + first * itemsize(format_of(each.precision));
    const Touch touch =
        unit(each.precision).touch[static_cast<int>(each.grad_format)][each.arrays.size()];
    touch(at, each.grad + first * itemsize(each.grad_format), last - first);
}

}  // namespace

void touch_all(const std::vector<Touched>& all, std::int64_t repeats) {
    std::size_t elements = 0, bytes = 0;
    for (const Touched& each : all) {
        elements += each.count;
        bytes += each.count * (itemsize(each.grad_format) +
                               each.arrays.size() * itemsize(format_of(each.precision)));
    }
    const int threads = threads_for(bytes);
    const auto share = [&](Member member) {
        const FlushSubnormals flushing;
        for_each_share(
            member, all.size(), elements, [&](std::size_t k) { return all[k].count; },
            [](std::size_t) { return unit_elements; },
            [&](std::size_t k, std::size_t first, std::size_t last) {
                touch_range(all[k], first, last);
            });
    };
    for (std::int64_t k = 0; k < repeats; ++k) parallel(threads, share);
}

}  // namespace instep
