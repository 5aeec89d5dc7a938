#include "engine/norms.h"

#include <vector>

#include "engine/dispatch.h"
#include "engine/tiles.h"

namespace instep {
namespace {

/// A gradient as the caller gave it or as the rule will see it. The former comes in the order of
/// its memory where it fills that: a transposed array need not be read across its lines only to be
/// summed.
struct Gradient {
    Work work;
    Squares what;
    unsigned streams;
    Factors unscale;

    Gradient(const Work& part, const Plan& plan, Squares its_squares)
        : work(part),
          what(its_squares),
          streams(bit(grad_stream) | (what == Squares::raw ? 0 : bit(accumulated_stream))),
          unscale(what == Squares::raw ? Factors() : plan.around.unscale) {
        if (what == Squares::raw && work.grad.dense) work.buffered &= ~bit(grad_stream);
    }
    /// The rows outside of which it is zero; null where it may be nowhere.
    const std::vector<std::uint32_t>* rows() const {
        if (work.touched) return work.touched->ids;
        const bool is_alone = what == Squares::raw || !work.block.data[accumulated_stream];
        return work.grad.rows && is_alone ? &work.grad.rows->ids() : nullptr;
    }
    std::size_t row_length() const {
        return work.touched ? work.touched->length : work.grad.rows->length;
    }
    template <class Visit>
    void for_each_block(std::size_t start, std::size_t count, Visit visit) const {
        for_each_tile(work, start, count, streams, 0, work.block,
                      [&](const Block& block, const Block&) { visit(block); });
    }
};

}  // namespace

double sum_of_lanes(double* lanes) {
    for (std::size_t width = sum_lanes / 2; width > 0; width /= 2)
        for (std::size_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
    return lanes[0];
}

double sum_of_squares(const Work& work, const Plan& plan, Squares what, std::size_t start,
                      std::size_t count, std::size_t bytes_ahead) {
    double lanes[sum_lanes] = {};
    const Gradient gradient(work, plan, what);
    const auto add = unit(work.precision()).sum_of_squares;
    if (const std::vector<std::uint32_t>* const ids = gradient.rows()) {
        // Zeros add nothing, so that those in between are left out.
        const std::size_t length = gradient.row_length(), end = start + count;
        auto next = std::lower_bound(ids->begin(), ids->end(), start / length);
        for (std::size_t at = start; next != ids->end() && at < end;) {
            at = std::max(at, *next * length / sum_lanes * sum_lanes);
            const std::size_t after = (*next * length + length + sum_lanes - 1) / sum_lanes;
            const std::size_t stop = std::min({after * sum_lanes, at + tile_elements, end});
            if (at >= stop) break;
            gradient.for_each_block(
                at, stop - at, [&](const Block& block) { add(block, gradient.unscale, 0, lanes); });
            at = stop;
            while (next != ids->end() && *next * length + length <= at) ++next;
        }
        return sum_of_lanes(lanes);
    }
    gradient.for_each_block(start, count, [&](const Block& block) {
        add(block, gradient.unscale, bytes_ahead, lanes);
    });
    return sum_of_lanes(lanes);
}

double careful_norm(const Work& work, const Plan& plan, Squares what, std::size_t start,
                    std::size_t count) {
    Gradient gradient(work, plan, what);
    gradient.work.buffered |= bit(grad_stream);  // so that it is in the precision of its parameter
    const auto at = [&](const void* data, std::size_t k) {
        if (work.precision() == Precision::float64) return static_cast<const double*>(data)[k];
        return static_cast<double>(static_cast<const float*>(data)[k]);
    };
    const double unscale = gradient.unscale.first * gradient.unscale.second;
    return scaled_norm([&](auto visit) {
        gradient.for_each_block(start, count, [&](const Block& block) {
            const void* const accumulated = block.data[accumulated_stream];
            for (std::size_t k = 0; k < block.count; ++k)
                visit(unscale * at(block.data[grad_stream], k) +
                      (accumulated ? at(accumulated, k) : 0));
        });
    });
}

}  // namespace instep
