#include "engine/step.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/dispatch.h"
#include "engine/float_mode.h"
#include "engine/threads.h"

namespace instep {
namespace {

/// Elements that are summed at a time: this fixes the bits of norms.
constexpr std::size_t block_elements = 16384;
/// Elements that go through buffers at a time: those of a few streams fit the first-level cache.
/// Threads share an array at multiples of it.
constexpr std::size_t tile_elements = 1024;

constexpr unsigned bit(int stream) {
    return 1u << stream;
}
constexpr unsigned gradient_streams = bit(grad_stream) | bit(accumulated_stream);
constexpr unsigned all_streams = bit(stream_count) - 1;

/// Calls kernel(block) for elements [start, start + count) of the streams in `used`, as often as it
/// takes: directly on contiguous memory, through buffers for the rest. What the kernel changed in a
/// buffer of a stream in `written` goes back.
template <class Kernel>
void for_each_tile(const Work& work, std::size_t start, std::size_t count, unsigned used,
                   unsigned written, Kernel kernel) {
    const std::size_t item = itemsize(work.dtype);
    unsigned buffered = 0;
    void* data[stream_count];
    for (int s = 0; s < stream_count; ++s) {
        const Stream& stream = work.streams[s];
        if (!stream.data) used &= ~bit(s);
        if (!stream.contiguous() || stream.dtype != work.dtype) buffered |= bit(s);
        data[s] = used & bit(s) ? stream.data + start * item : nullptr;
    }
    buffered &= used;
    const auto run = [&](std::size_t padded_count) {
        Block block;
        block.param = data[param_stream];
        block.grad = data[grad_stream] ? data[grad_stream] : data[param_stream];
        std::copy(data + first_slot, data + stream_count, block.slots);
        block.average = data[average_stream];
        block.accumulated = data[accumulated_stream];
        block.count = padded_count;
        block.coefficients = work.coefficients;
        block.around = &work.around;
        kernel(block);
    };
    const std::size_t whole = count - count % granule;
    if (!buffered && whole > 0) run(whole);
    std::size_t done = buffered ? 0 : whole;
    if (done == count) return;

    alignas(64) unsigned char buffers[stream_count][tile_elements * sizeof(double)];
    for (; done < count; done += tile_elements) {
        const std::size_t length = std::min(tile_elements, count - done);
        const std::size_t padded = (length + granule - 1) / granule * granule;
        const unsigned through_buffers = padded == length ? buffered : used;
        for (int s = 0; s < stream_count; ++s) {
            if (!(used & bit(s))) continue;
            data[s] = work.streams[s].data + (start + done) * item;
            if (!(through_buffers & bit(s))) continue;
            data[s] = buffers[s];
            gather(*work.shape, work.streams[s], start + done, length, work.dtype, buffers[s]);
            std::memset(buffers[s] + length * item, 0, (padded - length) * item);
        }
        run(padded);
        for (int s = 0; s < stream_count; ++s)
            if (through_buffers & written & bit(s))
                scatter(*work.shape, work.streams[s], start + done, length, buffers[s]);
    }
}

/// The gradients of one part of a step, as the caller gave them or as the rule will see them.
struct Gradients {
    const Work& work;
    unsigned streams;
    Around around;

    Gradients(const Work& part, Step::Sum what) : work(part), streams(bit(grad_stream)) {
        if (what == Step::Sum::raw) return;
        streams |= bit(accumulated_stream);
        around.unscale = part.around.unscale;
    }
    template <class Visit>
    void for_each_block(std::size_t start, std::size_t count, Visit visit) const {
        for_each_tile(work, start, count, streams, 0, [&](Block& block) {
            block.around = &around;
            visit(block);
        });
    }
};

/// The sum of squares in [start, start + count), added up in a fixed order.
double squares(const Gradients& gradients, std::size_t start, std::size_t count) {
    double lanes[granule] = {};
    const auto add = level().sum_of_squares[static_cast<int>(gradients.work.dtype)];
    gradients.for_each_block(start, count, [&](const Block& block) { add(block, lanes); });
    for (std::size_t width = granule / 2; width > 0; width /= 2)
        for (std::size_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
    return lanes[0];
}

/// The 2-norm of numbers whose squares may overflow: two passes over `for_each`.
template <class ForEach>
double scaled_norm(ForEach for_each) {
    double largest = 0, sum = 0;
    for_each([&](double x) {
        if (std::isnan(x) || std::abs(x) > largest) largest = std::abs(x);
    });
    if (largest == 0 || !std::isfinite(largest)) return largest;
    for_each([&](double x) { sum += (x / largest) * (x / largest); });
    return largest * std::sqrt(sum);
}

/// The 2-norm of gradients whose sum of squares is not finite, though they may be.
double careful_norm(const Gradients& gradients) {
    const bool single = gradients.work.dtype == Dtype::float32;
    const auto at = [&](const void* data, std::size_t k) {
        return single ? static_cast<double>(static_cast<const float*>(data)[k])
                      : static_cast<const double*>(data)[k];
    };
    return scaled_norm([&](auto visit) {
        gradients.for_each_block(0, gradients.work.size, [&](const Block& block) {
            for (std::size_t k = 0; k < block.count; ++k)
                visit(gradients.around.unscale * at(block.grad, k) +
                      (block.accumulated ? at(block.accumulated, k) : 0));
        });
    });
}

}  // namespace

void Step::reserve() {
    starts_.clear();
    blocks_ = elements_ = bytes_ = 0;
    norms_wanted_ = wants_norm;
    has_accumulated_ = skipped = false;
    grad_norm = 0;
    for (const Work& work : works) {
        starts_.push_back({blocks_, elements_});
        blocks_ += (work.size + block_elements - 1) / block_elements;
        elements_ += work.size;
        for (const Stream& stream : work.streams)
            if (stream.data) bytes_ += work.size * itemsize(stream.dtype);
        norms_wanted_ |= work.clipnorm != no_clipping;
        has_accumulated_ |= work.streams[accumulated_stream].data != nullptr;
    }
    if (skip_nonfinite || norms_wanted_) {
        block_sums_.assign(blocks_, 0);
        norms_.assign(works.size(), 0);
    }
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
    update(thread, team);
}

/// Calls visit(k, first, last) for this thread's elements of each part: an equal share of all
/// elements, with borders at multiples of `unit` in each part.
template <class Visit>
void Step::for_each_share(int thread, int team, std::size_t unit, Visit visit) noexcept {
    const auto border = [&](int t) {
        return t == team ? elements_
                         : static_cast<std::size_t>(static_cast<double>(elements_) * t / team);
    };
    const std::size_t first = border(thread), last = border(thread + 1);
    for (std::size_t k = 0; k < works.size(); ++k) {
        const std::size_t start = starts_[k].element, size = works[k].size;
        if (start >= last) return;
        const auto within = [&](std::size_t element) {
            const std::size_t passed = element > start ? element - start : 0;
            return std::min((passed + unit - 1) / unit * unit, size);
        };
        if (within(first) < within(last)) visit(k, within(first), within(last));
    }
}

void Step::add_squares(Sum what, int thread, int team) noexcept {
    for_each_share(thread, team, block_elements,
                   [&](std::size_t k, std::size_t first, std::size_t last) {
                       if (!works[k].streams[grad_stream].data) return;
                       const Gradients gradients(works[k], what);
                       for (std::size_t start = first; start < last; start += block_elements)
                           block_sums_[starts_[k].block + start / block_elements] =
                               squares(gradients, start, std::min(block_elements, last - start));
                   });
}

/// From the sums of blocks to each part's norm.
void Step::finish_norms(Sum what) noexcept {
    for (std::size_t k = 0; k < works.size(); ++k) {
        const std::size_t end = k + 1 < works.size() ? starts_[k + 1].block : blocks_;
        double sum = 0;
        for (std::size_t block = starts_[k].block; block < end; ++block) sum += block_sums_[block];
        norms_[k] = std::isfinite(sum) ? std::sqrt(sum) : careful_norm(Gradients(works[k], what));
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
        norms_[k] *= std::abs(works[k].around.scale);
        Around& around = works[k].around;
        if (norms_[k] > works[k].clipnorm) around.scale *= works[k].clipnorm / norms_[k];
    }
    if (!wants_norm) return;
    grad_norm = scaled_norm([&](auto visit) {
        for (const double norm : norms_) visit(norm);
    });
    if (grad_norm <= global_clipnorm) return;
    // As in Keras a norm that is not finite spoils every array, not only the one that it is from.
    const double factor = std::isfinite(grad_norm) ? global_clipnorm / grad_norm : std::nan("");
    for (Work& work : works) work.around.scale *= factor;
}

void Step::update(int thread, int team) noexcept {
    for_each_share(thread, team, tile_elements,
                   [&](std::size_t k, std::size_t first, std::size_t last) {
                       for_each_tile(works[k], first, last - first, all_streams,
                                     all_streams & ~gradient_streams, works[k].update);
                   });
}

}  // namespace instep
