#include "engine/limit.h"

#include <algorithm>

#include "engine/dispatch.h"
#include "engine/float_mode.h"
#include "engine/threads.h"

namespace instep {
namespace {

constexpr std::size_t unit = 64;  // elements; threads share an array at multiples of it

/// Touches elements [first, last) of all those of `all`, one after the other.
void touch_range(const std::vector<Touched>& all, std::size_t first, std::size_t last) {
    std::size_t start = 0;
    for (const Touched& each : all) {
        if (start >= last) return;
        const auto within = [&](std::size_t element) {
            const std::size_t passed = element > start ? element - start : 0;
            return std::min((passed + unit - 1) / unit * unit, each.count);
        };
        const std::size_t from = within(first), to = within(last);
        start += each.count;
        if (from >= to) continue;
        void* at[max_touched];
        for (std::size_t k = 0; k < each.arrays.size(); ++k)
            at[k] = each.arrays[k] + from * itemsize(each.dtype);
        const auto& by_count =
            level().touch[static_cast<int>(each.dtype)][static_cast<int>(each.grad_dtype)];
        by_count[each.arrays.size()](at, each.grad + from * itemsize(each.grad_dtype), to - from);
    }
}

}  // namespace

void touch_all(const std::vector<Touched>& all, std::int64_t repeats) {
    std::size_t elements = 0, bytes = 0;
    for (const Touched& each : all) {
        elements += each.count;
        bytes +=
            each.count * (itemsize(each.grad_dtype) + each.arrays.size() * itemsize(each.dtype));
    }
    const int threads = threads_for(bytes);
    auto share = [&](int thread, int team) {
        const FlushSubnormals flushing;
        const auto border = [&](int t) {
            return elements * static_cast<std::size_t>(t) / static_cast<std::size_t>(team);
        };
        touch_range(all, border(thread), border(thread + 1));
    };
    const auto body = [](void* context, int thread, int team) {
        (*static_cast<decltype(share)*>(context))(thread, team);
    };
    for (std::int64_t k = 0; k < repeats; ++k)
        threads == 1 ? share(0, 1) : parallel(threads, body, &share);
}

}  // namespace instep
