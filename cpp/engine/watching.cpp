#include "engine/watching.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/dispatch.h"
#include "engine/tiles.h"

namespace instep {
namespace {

/// A block whose gradient is one of its other streams, or memory like theirs.
Block block_of(const void* data, const void* accumulated, std::size_t count, Precision precision) {
    Block block{};
    block.data[grad_stream] = const_cast<void*>(data);
    block.data[accumulated_stream] = const_cast<void*>(accumulated);
    block.count = count;
    block.grad_format = format_of(precision);
    return block;
}

/// How many elements of a block's gradient, unscaled and accumulated, are not finite.
double nonfinite_in(const Block& block, const Factors& unscale, Precision precision) {
    double count = 0;
    const auto add = unit(precision).sum_of_squares;
    for (std::size_t k = 0; k < block.count; ++k) {
        Block one = part_of(block, precision, k, 1);
        double lanes[sum_lanes] = {};
        // Scaled so that no square of a finite number overflows.
        const Factors scale{unscale.first * 0x1p-600, unscale.second};
        const bool is_double = precision == Precision::float64 && !one.data[accumulated_stream];
        add(one, is_double ? scale : unscale, 0, lanes);
        count += !std::isfinite(sum_of_lanes(lanes));
    }
    return count;
}

/// Whether a sum of squares in the precision of the elements is what it should be: nothing has
/// overflowed, and what is too small for it does not matter.
bool is_good(double sum) {
    return 1e-28 <= sum && std::isfinite(sum);
}

/// The same sum with room for all squares.
double careful_sum(const Block& block, const Factors& unscale, Precision precision) {
    double lanes[sum_lanes] = {};
    unit(precision).sum_of_squares(block, unscale, 0, lanes);
    return sum_of_lanes(lanes);
}

}  // namespace

WatchedSums run_watched(const Operation& operation, const Work& work, const Plan& plan,
                        std::size_t start, std::size_t count, const Ahead& ahead,
                        unsigned watch) noexcept {
    const Precision precision = work.precision();
    const Unit& kernels = unit(precision);
    const std::size_t item = itemsize(format_of(precision));
    const Factors& unscale = plan.around.unscale;
    const bool sees_gradient = watch & (watch_grad_norm | watch_nonfinite);
    const bool sees_update = watch & watch_update_norm, sees_param = watch & watch_param_norm;
    // Where fetching ahead pays, the whole next tile is fetched while this one is updated, so that
    // memory has something to do during the sums.
    Manner manner = ahead.manner;
    if (manner.bytes_ahead) manner.bytes_ahead = std::max(manner.bytes_ahead, tile_elements * item);
    alignas(64) char before[tile_elements * sizeof(double)];
    WatchedSums sums;
    const auto look_at_gradient = [&](const Block& block) {
        double sum = kernels.watch_gradient(block, unscale);
        if (!is_good(sum)) {
            sum = careful_sum(block, unscale, precision);
            if (watch & watch_nonfinite && !std::isfinite(sum))
                sums.nonfinite += nonfinite_in(block, unscale, precision);
        }
        sums.grad += sum;
    };
    const auto look_at_change = [&](const void* now, std::size_t length) {
        double change = 0, result = 0;
        kernels.watch_change(before, now, length, sees_update ? &change : nullptr,
                             sees_param ? &result : nullptr);
        if (sees_update && !is_good(change))
            change = careful_sum(block_of(before, now, length, precision), {-1, 1}, precision);
        if (sees_param && !is_good(result))
            result = careful_sum(block_of(now, nullptr, length, precision), {}, precision);
        sums.update += change;
        sums.param += result;
    };
    const auto run = [&](const Block& block, const Block& next) {
        const void* const elements = block.data[param_stream];
        if (sees_update) std::memcpy(before, elements, block.count * item);
        (*operation.call)({&block}, {next, manner});
        if (sees_gradient) look_at_gradient(block);
        if (sees_update || sees_param) look_at_change(elements, block.count);
    };
    for (std::size_t done = 0; done < count; done += tile_elements) {
        const std::size_t length = std::min(tile_elements, count - done);
        const Block rest = part_of(work.block, precision, start + done + length, 0);
        const Block& after = done + length < count ? rest : ahead.after;
        for_each_tile(work, start + done, length, operation.used, operation.written, after, run,
                      false);  // sums of rows are others than those of a tile
    }
    if (!std::isfinite(sums.grad))
        sums.grad = -careful_norm(work, plan, Squares::accumulated, start, count);
    return sums;
}

double count_nonfinite(const Work& work, const Plan& plan, std::size_t start,
                       std::size_t count) noexcept {
    double nonfinite = 0;
    const unsigned used = bit(grad_stream) | bit(accumulated_stream);
    for_each_tile(work, start, count, used, 0, work.block, [&](const Block& block, const Block&) {
        nonfinite += nonfinite_in(block, plan.around.unscale, work.precision());
    });
    return nonfinite;
}

}  // namespace instep
