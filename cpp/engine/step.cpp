#include "engine/step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/dispatch.h"
#include "engine/float_mode.h"
#include "engine/threads.h"

namespace instep {
namespace {

/// Elements that are summed at a time: this fixes the bits of norms.
constexpr std::size_t block_elements = 16384;
/// Elements of each of the rows that are read together.
constexpr std::size_t row_elements = 256;

constexpr unsigned gradient_streams = bit(grad_stream) | bit(accumulated_stream);

/// Elements [start, start + count) of a block.
Block part_of(const Block& block, Dtype dtype, std::size_t start, std::size_t count) {
    Block part = block;
    for (int s = 0; s < stream_count; ++s) {
        const Dtype its = s == grad_stream && block.converts ? other(dtype) : dtype;
        if (part.data[s]) part.data[s] = static_cast<char*>(part.data[s]) + start * itemsize(its);
    }
    part.count = count;
    return part;
}

/// Calls kernel(block, next) for elements [start, start + count) of the streams in `used`, with
/// those that it can't read as they are in buffers. What it changed of a stream in `written` goes
/// back. `next` is what it may fetch ahead; after the last elements, the block given.
template <class Kernel>
void for_each_tile(const Work& work, std::size_t start, std::size_t count, unsigned used,
                   unsigned written, const Block& after, Kernel kernel) {
    Block block = part_of(work.block, work.layout->dtype, start, count);
    for (int s = 0; s < stream_count; ++s)
        if (!(used & bit(s))) block.data[s] = nullptr;
    const unsigned buffered = work.buffered & used;
    if (!buffered) return kernel(block, after);

    const auto advance = [&](Block& tile) {
        const unsigned in_buffers = buffered | (work.grad.data ? 0 : bit(grad_stream));
        const Block next = part_of(tile, work.dtype, tile_elements, 0);
        for (int s = 0; s < stream_count; ++s)
            if (!(in_buffers & bit(s))) tile.data[s] = next.data[s];
    };
    alignas(64) unsigned char buffers[stream_count][tile_elements * sizeof(double)];
    for (std::size_t done = 0; done < count; done += tile_elements) {
        block.count = std::min(tile_elements, count - done);
        for (int s = 0; s < stream_count; ++s) {
            if (!(buffered & bit(s))) continue;
            block.data[s] = buffers[s];
            gather(work.layout->shape, work.stream(s), start + done, block.count, work.dtype,
                   buffers[s]);
        }
        if (!work.grad.data) block.data[grad_stream] = block.data[param_stream];
        Block next = block;
        advance(next);
        kernel(block, done + tile_elements < count ? next : after);
        for (int s = 0; s < stream_count; ++s)
            if (buffered & written & bit(s))
                scatter(work.layout->shape, work.stream(s), start + done, block.count, buffers[s]);
        advance(block);
    }
}

/// The gradients of one part of a step, as the caller gave them or as the rule will see them. The
/// former come in the order of their memory where they fill it: a transposed array need not be
/// read across its lines only to be summed.
struct Gradients {
    Work work;
    unsigned streams;
    Factors unscale;

    Gradients(const Work& part, const Plan& plan, Step::Sum what)
        : work(part),
          streams(what == Step::Sum::raw ? bit(grad_stream) : gradient_streams),
          unscale(what == Step::Sum::raw ? Factors() : plan.around.unscale) {
        if (what != Step::Sum::raw || !work.grad.dense) return;
        work.buffered &= ~bit(grad_stream);
        work.block.converts = work.grad.dtype != work.dtype;
    }
    template <class Visit>
    void for_each_block(std::size_t start, std::size_t count, Visit visit) const {
        for_each_tile(work, start, count, streams, 0, work.block,
                      [&](const Block& block, const Block&) { visit(block); });
    }
};

/// The sum over all lanes, in a fixed order.
double sum_of_lanes(double* lanes) {
    for (std::size_t width = sum_lanes / 2; width > 0; width /= 2)
        for (std::size_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
    return lanes[0];
}

/// The sum of squares in [start, start + count), added up in a fixed order.
double squares(const Gradients& gradients, std::size_t start, std::size_t count) {
    double lanes[sum_lanes] = {};
    const auto add = level().sum_of_squares[static_cast<int>(gradients.work.layout->dtype)];
    gradients.for_each_block(start, count,
                             [&](const Block& block) { add(block, gradients.unscale, lanes); });
    return sum_of_lanes(lanes);
}

/// The 2-norm of numbers whose squares may overflow: two passes over `for_each`. Of finite numbers
/// it is finite, at most the largest number that there is.
template <class ForEach>
double scaled_norm(ForEach for_each) {
    double largest = 0, sum = 0;
    for_each([&](double x) {
        if (std::isnan(x) || std::abs(x) > largest) largest = std::abs(x);
    });
    if (largest == 0 || !std::isfinite(largest)) return largest;
    for_each([&](double x) { sum += (x / largest) * (x / largest); });
    return std::min(largest * std::sqrt(sum), std::numeric_limits<double>::max());
}

/// The 2-norm of gradients whose sum of squares is not finite, though they may be.
double careful_norm(const Gradients& gradients) {
    const Dtype dtype = gradients.work.dtype;
    const auto at = [&](const void* data, Dtype its, std::size_t k) {
        if (its == Dtype::float32) return static_cast<double>(static_cast<const float*>(data)[k]);
        const double x = static_cast<const double*>(data)[k];
        return dtype == its ? x : static_cast<double>(static_cast<float>(x));  // as it is read
    };
    const double unscale = gradients.unscale.first * gradients.unscale.second;
    return scaled_norm([&](auto visit) {
        gradients.for_each_block(0, gradients.work.layout->size, [&](const Block& block) {
            const void* const accumulated = block.data[accumulated_stream];
            for (std::size_t k = 0; k < block.count; ++k)
                visit(unscale *
                          at(block.data[grad_stream], block.converts ? other(dtype) : dtype, k) +
                      (accumulated ? at(accumulated, dtype, k) : 0));
        });
    });
}

/// The factors of a gradient with its plan's scale that is clipped from one norm to another.
Factors clipped(const Work& work, const Plan& plan, double from, double to) {
    const double wanted = to / from, more = wanted >= 0x1p-1000 ? 1 : 0x1p-1000;
    return factors(plan.around.scale * (more == 1 ? wanted : to / (from * more)),
                   work.dtype == Dtype::float32, more);
}

}  // namespace

void prepare(Plan& plan, Dtype dtype, double learning_rate, std::int64_t step,
             const double* hyperparameters) {
    const FlushSubnormals mode;  // numbers, too, come from one floating-point mode
    plan.rule->prepare[static_cast<int>(dtype)](learning_rate, step, hyperparameters, plan.scalars,
                                                plan.around, &plan.coefficients);
}

void update_array(const Plan& plan, const Block& block, Dtype dtype) noexcept {
    std::size_t streams = 0;
    for (const void* data : block.data) streams += data != nullptr;
    auto share = [&](int thread, int team) {
        const FlushSubnormals flushing;
        const std::size_t tiles = (block.count + tile_elements - 1) / tile_elements;
        const auto border = [&](int t) {
            return std::min(tiles * static_cast<std::size_t>(t) / static_cast<std::size_t>(team) *
                                tile_elements,
                            block.count);
        };
        const std::size_t first = border(thread), last = border(thread + 1);
        const Block part = part_of(block, dtype, first, last - first);
        if (part.count > 0) plan.update(part, part, plan.coefficients);
    };
    const int threads = threads_for(streams * itemsize(dtype) * block.count);
    if (threads == 1) return share(0, 1);
    const auto body = [](void* context, int thread, int team) {
        (*static_cast<decltype(share)*>(context))(thread, team);
    };
    parallel(threads, body, &share);
}

Work::Work(const Layout& arrays, StreamIndex what, unsigned streams, const Stream& gradient,
           bool is_raw, std::size_t its_plan, std::size_t first_element)
    : block(arrays.block),
      grad(gradient),
      layout(&arrays),
      plan(its_plan),
      first(first_element),
      buffered(arrays.buffered),
      target(what),
      dtype(arrays.dtype),
      raw_gradient(is_raw) {
    if (target != param_stream) {
        block.data[param_stream] = block.data[target];
        buffered = (buffered & ~bit(param_stream)) | (buffered >> target & 1) << param_stream;
    }
    // A kernel that works without a gradient reads one all the same.
    block.data[grad_stream] = grad.data ? grad.data : block.data[param_stream];
    if (Layout::needs_buffer(grad))
        buffered |= bit(grad_stream);
    else
        block.converts = grad.data && grad.dtype != dtype;
    if ((layout->present & ~streams) == 0) return;
    buffered &= streams;
    for (int s = 0; s < stream_count; ++s)
        if (!(streams & bit(s))) block.data[s] = nullptr;
}

void Step::clear() {
    plans.clear();
    works.clear();
    elements_ = bytes_ = 0;
    has_accumulated_ = measures_ = false;
}

void Step::add(const Layout& layout, StreamIndex target, unsigned streams, const Stream& grad,
               bool raw_gradient) {
    const Work& work = works.emplace_back(layout, target, streams | bit(grad_stream), grad,
                                          raw_gradient, plans.size() - 1, elements_);
    elements_ += layout.size;
    bytes_ += (layout.count + 1) * itemsize(layout.dtype) * layout.size;
    has_accumulated_ |= work.block.data[accumulated_stream] != nullptr;
    measures_ |= plans.back().measure != nullptr;
}

void Step::reserve() {
    norms_wanted_ = wants_norm;
    skipped = false;
    grad_norm = 0;
    for (const Plan& plan : plans) norms_wanted_ |= plan.clipnorm != no_clipping;
    for (Work& work : works)
        work.block.factors = factors(plans[work.plan].around.scale, work.dtype == Dtype::float32);
    if (!skip_nonfinite && !norms_wanted_ && !measures_) return;
    first_blocks_.assign(1, 0);
    for (const Work& work : works)
        first_blocks_.push_back(first_blocks_.back() +
                                (work.layout->size + block_elements - 1) / block_elements);
    block_sums_.assign(first_blocks_.back(), 0);
    norms_.assign(works.size(), 0);
    if (measures_) rule_sums_.assign(max_sums * first_blocks_.back(), 0);
}

void Step::run() noexcept {
    const int threads = threads_for(bytes_);
    if (threads == 1) return run_thread(0, 1);
    const auto body = [](void* step, int thread, int team) {
        static_cast<Step*>(step)->run_thread(thread, team);
    };
    parallel(threads, body, this);
}

/// One thread's share. Between passes over memory the first thread works alone.
void Step::run_thread(int thread, int team) noexcept {
    const FlushSubnormals flushing;
    const auto alone = [&](auto action) {
        if (team > 1) barrier();
        if (thread == 0) action();
        if (team > 1) barrier();
    };
    const bool norms_of_raw = norms_wanted_ && !has_accumulated_;
    if (skip_nonfinite || norms_of_raw) {
        add_squares(Sum::raw, thread, team);
        alone([&] {
            finish_norms(Sum::raw);
            skipped = skip_nonfinite && !finite();
            if (norms_of_raw) clip();
        });
        if (skipped) return;
    }
    if (norms_wanted_ && has_accumulated_) {
        add_squares(Sum::accumulated, thread, team);
        alone([&] {
            finish_norms(Sum::accumulated);
            clip();
        });
    }
    if (measures_) {
        measure(thread, team);
        alone([&] { complete(); });
    }
    update(thread, team);
}

/// Calls visit(k, first, last) for this thread's elements of each part: an equal share of all
/// elements, with borders at multiples of unit(part) in each.
template <class Unit, class Visit>
void Step::for_each_share(int thread, int team, Unit unit_of, Visit visit) noexcept {
    const auto border = [&](int t) {
        return t == team ? elements_
                         : static_cast<std::size_t>(static_cast<double>(elements_) * t / team);
    };
    const std::size_t first = border(thread), last = border(thread + 1);
    for (std::size_t k = 0; k < works.size(); ++k) {
        const std::size_t start = works[k].first, size = works[k].block.count;
        if (start >= last) return;
        const std::size_t unit = unit_of(works[k]);
        const auto within = [&](std::size_t element) {
            const std::size_t passed = element > start ? element - start : 0;
            return passed >= size ? size : std::min((passed + unit - 1) / unit * unit, size);
        };
        const std::size_t from = within(first), to = within(last);
        if (from < to) visit(k, from, to);
    }
}

void Step::add_squares(Sum what, int thread, int team) noexcept {
    const auto unit = [](const Work&) { return block_elements; };
    for_each_share(thread, team, unit, [&](std::size_t k, std::size_t first, std::size_t last) {
        if (!works[k].grad.data) return;
        const Gradients gradients(works[k], plans[works[k].plan], what);
        for (std::size_t start = first; start < last; start += block_elements)
            block_sums_[first_blocks_[k] + start / block_elements] =
                squares(gradients, start, std::min(block_elements, last - start));
    });
}

/// From the sums of blocks to each part's norm.
void Step::finish_norms(Sum what) noexcept {
    for (std::size_t k = 0; k < works.size(); ++k) {
        double sum = 0;
        for (std::size_t block = first_blocks_[k]; block < first_blocks_[k + 1]; ++block)
            sum += block_sums_[block];
        norms_[k] = std::isfinite(sum)
                        ? std::sqrt(sum)
                        : careful_norm(Gradients(works[k], plans[works[k].plan], what));
    }
}

bool Step::finite() const noexcept {
    for (std::size_t k = 0; k < works.size(); ++k)
        if (works[k].raw_gradient && !std::isfinite(norms_[k])) return false;
    return true;
}

/// Turns norms into a factor on each gradient: c / max(norm, c).
void Step::clip() noexcept {
    for (std::size_t k = 0; k < works.size(); ++k) {
        const Plan& plan = plans[works[k].plan];
        norms_[k] *= std::abs(plan.around.scale);
        if (norms_[k] > plan.clipnorm)
            works[k].block.factors = clipped(works[k], plan, norms_[k], plan.clipnorm);
    }
    if (!wants_norm) return;
    grad_norm = scaled_norm([&](auto visit) {
        for (const double norm : norms_) visit(norm);
    });
    if (grad_norm <= global_clipnorm) return;
    // As in Keras a norm that is not finite spoils every array, not only the one that it is from.
    const double norm = std::isfinite(grad_norm) ? grad_norm : std::nan("");
    for (Work& work : works)
        work.block.factors = clipped(work, plans[work.plan], norm, global_clipnorm);
}

/// Adds up what rules need to know of whole arrays before they update them.
void Step::measure(int thread, int team) noexcept {
    const auto unit = [](const Work&) { return block_elements; };
    for_each_share(thread, team, unit, [&](std::size_t k, std::size_t first, std::size_t last) {
        const Work& work = works[k];
        const Plan& plan = plans[work.plan];
        if (!plan.measure) return;
        for (std::size_t start = first; start < last; start += block_elements) {
            double lanes[max_sums * sum_lanes] = {};
            const std::size_t count = std::min(block_elements, last - start);
            for_each_tile(work, start, count, all_streams, 0, work.block,
                          [&](const Block& block, const Block&) {
                              plan.measure(block, plan.coefficients, lanes);
                          });
            double* const sums =
                &rule_sums_[max_sums * (first_blocks_[k] + start / block_elements)];
            for (std::size_t s = 0; s < max_sums; ++s)
                sums[s] = sum_of_lanes(lanes + s * sum_lanes);
        }
    });
}

/// Tells rules their sums.
void Step::complete() noexcept {
    double all[max_sums] = {};
    const auto add = [&](std::size_t k, double* sums) {
        for (std::size_t block = first_blocks_[k]; block < first_blocks_[k + 1]; ++block)
            for (std::size_t s = 0; s < max_sums; ++s) sums[s] += rule_sums_[max_sums * block + s];
    };
    for (std::size_t k = 0; k < works.size(); ++k)
        if (plans[works[k].plan].measure) add(k, all);
    for (std::size_t k = 0; k < works.size(); ++k) {
        Plan& plan = plans[works[k].plan];
        if (!plan.measure) continue;
        double own[max_sums] = {};
        if (!plan.rule->sums_over_all) add(k, own);
        plan.rule->complete[static_cast<int>(works[k].dtype)](plan.rule->sums_over_all ? all : own,
                                                              plan.scalars, &plan.coefficients);
    }
}

/// Updates elements [first, last) of an array, and fetches what comes after.
void Step::update_range(const Work& work, std::size_t first, std::size_t last,
                        const Block& after) noexcept {
    const Plan& plan = plans[work.plan];
    for_each_tile(work, first, last - first, all_streams, all_streams & ~gradient_streams, after,
                  [&](const Block& block, const Block& next) {
                      plan.update(block, next, plan.coefficients);
                  });
}

/// The same where the gradient is best read several rows at a time; from one row's begin to
/// another's.
void Step::update_rows(const Work& work, const Rows& rows, std::size_t first, std::size_t last,
                       const Block& after) noexcept {
    const Shape& shape = work.layout->shape;
    const std::size_t item = itemsize(work.dtype);
    alignas(64) char buffer[Rows::most * row_elements * sizeof(double)];
    Work part = work;  // with a gradient from the buffer
    part.buffered &= ~bit(grad_stream);
    std::size_t together;
    for (std::size_t row = first / rows.length; row < last / rows.length; row += together) {
        together = std::min(rows.together(shape, row), last / rows.length - row);
        std::size_t count;
        for (std::size_t column = 0; column < rows.length; column += count) {
            count = std::min(row_elements, rows.length - column);
            rows.gather(shape, work.grad, row, together, column, count, work.dtype, buffer);
            for (std::size_t k = 0; k < together; ++k) {
                const std::size_t start = (row + k) * rows.length + column;
                part.block.data[grad_stream] = buffer + k * count * item - start * item;
                const Block next = part_of(part.block, work.dtype, start + rows.length, count);
                update_range(part, start, start + count, k + 1 < together ? next : after);
            }
        }
    }
}

void Step::update(int thread, int team) noexcept {
    const auto rows_of = [](const Work& work) {
        return Rows(work.layout->shape, work.buffered & bit(grad_stream) ? work.grad : Stream());
    };
    const auto unit = [&](const Work& work) {
        const std::size_t row = work.buffered ? rows_of(work).length : 0;
        return row ? row : tile_elements;
    };
    for_each_share(thread, team, unit, [&](std::size_t k, std::size_t first, std::size_t last) {
        const Work& work = works[k];
        const Plan& plan = plans[work.plan];
        const Block& next = works[std::min(k + 1, works.size() - 1)].block;
        if (!work.buffered && first == 0 && last == work.block.count)
            return plan.update(work.block, next, plan.coefficients);
        if (const Rows rows = rows_of(work); rows.length)
            return update_rows(work, rows, first, last, next);
        update_range(work, first, last, next);
    });
}

}  // namespace instep
