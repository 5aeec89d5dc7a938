#include "engine/step.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "engine/crew.h"
#include "engine/dispatch.h"
#include "engine/fetch.h"
#include "engine/float_mode.h"
#include "engine/missed.h"
#include "engine/threads.h"
#include "engine/tiles.h"
#include "engine/tuning.h"

namespace instep {
namespace {

/// Elements of each of the rows that are read together.
constexpr std::size_t row_elements = 256;

/// The factors of a gradient with its plan's scale that is clipped from one norm to another.
Factors clipped(const Work& work, const Plan& plan, double from, double to) {
    const double wanted = to / from, more = wanted >= 0x1p-1000 ? 1 : 0x1p-1000;
    return factors(plan.around.scale * (more == 1 ? wanted : to / (from * more)),
                   work.precision() == Precision::float32, more);
}

/// One of a plan's kernels, and the streams that it knows of.
struct Pass {
    Call Plan::* call;
    unsigned used, written;
};

Pass pass_of(Phase phase) {
    if (phase == Phase::lend)
        return {&Plan::lend, all_streams & ~bit(average_stream), bit(first_slot)};
    return {&Plan::update, all_streams,
            all_streams & ~(bit(grad_stream) | bit(accumulated_stream))};
}

/// Runs a kernel over elements [first, last) of an array, and fetches what comes after.
void run_range(const Call& call, const Pass& pass, const Work& work, std::size_t first,
               std::size_t last, const Ahead& ahead) noexcept {
    for_each_tile(
        work, first, last - first, pass.used, pass.written, ahead.after,
        [&](const Block& block, const Block& next) { call({&block}, {next, ahead.manner}); });
}

/// The same where the gradient is best read several rows at a time; from one row's begin to
/// another's.
void run_rows(const Call& call, const Pass& pass, const Work& work, const Transposed& rows,
              std::size_t first, std::size_t last, const Ahead& ahead) noexcept {
    const Shape& shape = work.layout->shape;
    const std::size_t item = itemsize(format_of(work.precision()));
    alignas(64) char buffer[Transposed::most * row_elements * sizeof(double)];
    Work part = work;  // with a gradient from the buffer
    part.buffered &= ~bit(grad_stream);
    part.block.grad_format = format_of(work.precision());
    std::size_t together;
    for (std::size_t row = first / rows.length; row < last / rows.length; row += together) {
        together = std::min(rows.together(shape, row), last / rows.length - row);
        std::size_t count;
        for (std::size_t column = 0; column < rows.length; column += count) {
            count = std::min(row_elements, rows.length - column);
            rows.gather(shape, work.grad, row, together, column, count, work.precision(), buffer);
            for (std::size_t k = 0; k < together; ++k) {
                const std::size_t start = (row + k) * rows.length + column;
                part.block.data[grad_stream] = buffer + k * count * item - start * item;
                const Block next =
                    part_of(part.block, work.precision(), start + rows.length, count);
                run_range(call, pass, part, start, start + count,
                          {k + 1 < together ? next : ahead.after, ahead.manner});
            }
        }
    }
}

/// Calls visit(piece, manner) for all pieces of a passage, on as many threads as pay. The caller
/// has subnormal numbers flushed already.
template <class Visit>
void work_through(const Passage& passage, Choice* choices, bool may_measure,
                  const Visit& visit) noexcept {
    const int threads = threads_for(passage.bytes);
    Tuning tuning(choices, passage, threads, may_measure);
    for_each_piece(threads, piece_count(passage.bytes, threads), [&](Piece piece, bool is_caller) {
        std::optional<FlushSubnormals> flushing;
        if (!is_caller) flushing.emplace();
        tuning.run(piece, is_caller, [&](const Manner& manner) { visit(piece, manner); });
    });
}

}  // namespace

const char* name_of(Phase phase) {
    constexpr const char* names[] = {"raw_squares", "squares", "tell",  "renew",
                                     "sums",        "lend",    "update"};
    return names[static_cast<int>(phase)];
}

void update_array(const Call& update, const Block& block, Precision precision,
                  const void* source) noexcept {
    const std::size_t item = itemsize(format_of(precision));
    std::size_t bytes = source ? block.count * item : 0;
    for (int s = 0; s < stream_count; ++s)
        if (block.data[s])
            bytes +=
                block.count * itemsize(s == grad_stream ? block.grad_format : format_of(precision));
    const Passage passage{precision, 1, block.count, bytes};
    const FlushSubnormals flushing;
    work_through(passage, choices_for(passage), true, [&](Piece piece, const Manner& manner) {
        for_each_in(
            piece, {0, block.count}, 1, [&](std::size_t k) { return k ? block.count : 0; },
            [](std::size_t) { return tile_elements; },
            [&](std::size_t, std::size_t first, std::size_t last) {
                if (!source) {
                    const Block part = part_of(block, precision, first, last - first);
                    return update({&part}, {part, manner});
                }
                // Copied a tile at a time, the kernel finds the parameter in the cache.
                const Copy copy = unit(precision).gather[static_cast<int>(format_of(precision))];
                const auto step = static_cast<std::ptrdiff_t>(item);
                while (first < last) {
                    const std::size_t count = std::min(tile_elements, last - first);
                    const Block part = part_of(block, precision, first, count);
                    const char* const from = static_cast<const char*>(source) + first * item;
                    fetch_next_tile(from, step, count);
                    copy(from, step, static_cast<char*>(part.data[param_stream]), step, count);
                    first += count;
                    const Block next = part_of(block, precision, first, last - first);
                    update({&part}, {first < last ? next : part, manner});
                }
            });
    });
}

void Step::clear() {
    plans.clear();
    works.clear();
    parts_.clear();
    starts_.assign(1, 0);
    bytes_ = gradient_bytes_ = 0;
    span_ends_.clear();
    choices_ = {};
    has_accumulated_ = measures_ = lends_ = has_parts_ = has_touched_ = false;
}

void Step::add(const Layout& layout, StreamIndex target, unsigned streams, const Stream& grad,
               bool raw_gradient, const TouchedRows* touched) {
    Work& work = works.emplace_back(layout, target, streams | bit(grad_stream), grad, raw_gradient,
                                    plans.size() - 1);
    work.touched = touched;
    has_touched_ |= touched != nullptr;
    const std::size_t elements = touched ? touched->elements() : layout.size;
    starts_.push_back(starts_.back() + elements);
    const std::size_t gradient_bytes =
        grad.rows ? grad.bytes(elements) : elements * itemsize(work.block.grad_format);
    gradient_bytes_ += gradient_bytes;
    bytes_ += gradient_bytes;
    for (int s = 0; s < stream_count; ++s)
        if (s != grad_stream && work.block.data[s]) bytes_ += work.stream(s).bytes(elements);
    if (layout.copy.data) bytes_ += layout.copy.bytes(elements);
    has_accumulated_ |= work.block.data[accumulated_stream] != nullptr;
    measures_ |= plans.back().measure != nullptr;
    lends_ |= plans.back().lend.kernel != nullptr;
    has_parts_ |= plans.back().parts != nullptr && !touched;
}

void Step::reserve() {
    bool wants_norms = wants_norm || (has_touched_ && watch & (watch_grad_norm | watch_nonfinite));
    skipped = false;
    grad_norm = 0;
    for (const Plan& plan : plans) wants_norms |= plan.around.group.clipnorm != no_limit;
    Factors scale;
    for (std::size_t k = 0; k < works.size(); ++k) {
        Work& work = works[k];
        if (k == 0 || work.plan != works[k - 1].plan)
            scale = factors(plans[work.plan].around.scale, work.precision() == Precision::float32);
        work.block.factors = scale;
    }

    phase_count_ = next_phase_ = span_ = 0;
    shared_ = 0;
    is_brought_ = has_taken_ = false;
    const auto needs = [&](Phase phase, bool whether) {
        if (whether) phases_[phase_count_++] = phase;
    };
    needs(Phase::raw_squares, skip_nonfinite || (wants_norms && !has_accumulated_));
    needs(Phase::squares, wants_norms && has_accumulated_);
    // Others may have the arrays with parts: all go through the same phases.
    const bool tells =
        has_parts_ || (is_shared && std::any_of(plans.begin(), plans.end(), [](const Plan& plan) {
                           return plan.rule->info.divisible_slot >= 0;
                       }));
    needs(Phase::tell, tells);
    needs(Phase::renew, tells);
    needs(Phase::sums, measures_);
    needs(Phase::lend, lends_);
    needs(Phase::update, true);
    if (has_parts_) read_parts();
    has_norms_ = wants_norms;
    watched.clear();
    if (watch) watched.resize(works.size());
    if (phases_[0] >= Phase::lend && !watch) return;
    first_blocks_.assign(1, 0);
    for (const Work& work : works)
        first_blocks_.push_back(first_blocks_.back() +
                                (work.layout->whole_size + block_elements - 1) / block_elements);
    block_sums_.assign(first_blocks_.back(), 0);
    norms_.assign(works.size(), 0);
    if (measures_) rule_sums_.assign(max_sums * first_blocks_.back(), 0);
    if (watch) watched_sums_.assign(first_blocks_.back(), WatchedSums());
}

/// Makes room for what becomes of slots in parts, unless this step is like the last one, and reads
/// them.
void Step::read_parts() {
    if (parts_.empty()) {
        std::vector<SeenParts> made;
        made.reserve(works.size());  // they stay where they are
        const auto sees_parts = [&](const Work& work) {
            return plans[work.plan].parts && !work.touched;
        };
        for (const Work& work : works)
            if (sees_parts(work)) made.emplace_back(*work.layout, *plans[work.plan].parts);
        parts_ = std::move(made);
        auto next = parts_.begin();
        for (Work& work : works)
            if (sees_parts(work)) work.parts = &*next++;
    }
    for (SeenParts& parts : parts_) parts.read();
}

void Step::set_spans(const std::vector<Border>& ends) {
    std::size_t k = 0;
    for (const Border& end : ends) {
        while (k < works.size() && works[k].layout < end.array) ++k;
        const bool is_its = k < works.size() && works[k].layout == end.array;
        // Of rows there may be fewer elements: they are there from the first span on.
        span_ends_.push_back(is_its ? std::min(starts_[k] + end.element, starts_[k + 1])
                                    : starts_[k]);
    }
    if (!ends.empty()) span_ends_.back() = starts_.back();
}

Pause Step::advance() noexcept {
    const FlushSubnormals flushing;
    for (; next_phase_ < phase_count_ && !skipped; ++next_phase_) {
        const bool in_spans = !span_ends_.empty() && phase() != Phase::renew;
        const std::size_t spans = in_spans ? span_ends_.size() : 1;
        while (span_ < spans) {
            if (in_spans && !std::exchange(is_brought_, true)) return Pause::elements;
            pass(phase());
            is_brought_ = false;
            if (++span_ == spans && phase() == Phase::lend) return Pause::lent;
        }
        if (is_shared && shared_ < shared_count(phase())) return ++shared_, Pause::sums;
        conclude(phase());
        span_ = 0;
        shared_ = 0;
    }
    has_run_ = true;
    return Pause::none;
}

int Step::shared_count(Phase phase) const noexcept {
    switch (phase) {
        case Phase::raw_squares:
            return counts_nonfinite() ? 2 : 1;
        case Phase::squares:
        case Phase::sums:
            return 1;
        case Phase::update:
            return watch ? 1 : 0;
        default:
            return 0;
    }
}

Step::Numbers Step::shared() noexcept {
    constexpr std::size_t of_watched = sizeof(WatchedSums) / sizeof(double);
    if (phase() == Phase::update || shared_ == 2)
        return {&watched_sums_.data()->grad, of_watched * watched_sums_.size()};
    std::vector<double>& sums = phase() == Phase::sums ? rule_sums_ : block_sums_;
    return {sums.data(), sums.size()};
}

/// All threads' way over memory.
void Step::pass(Phase phase) noexcept {
    const bool over_gradients = phase == Phase::raw_squares || phase == Phase::tell;
    Passage passage{works.empty() ? Precision::float32 : works.front().precision(), works.size(),
                    starts_.back(), over_gradients ? gradient_bytes_ : bytes_,
                    watch != 0 && !over_gradients};
    std::optional<Choice*>& choices = choices_[over_gradients];
    // How rows are fetched does not depend on what was found out for whole arrays.
    if (!choices) choices = has_touched_ ? nullptr : choices_for(passage);
    // One phase for each choice, so that its times are of the same work: the others follow it.
    const bool is_measured = over_gradients ? phase == phases_[0] : phase == Phase::update;
    if (!span_ends_.empty() && passage.elements > 0) {
        passage.bytes = passage.bytes / passage.elements * span_elements().elements();
        passage.elements = span_elements().elements();
    }
    work_through(passage, *choices, has_run_ && is_measured,
                 [&](Piece piece, const Manner& manner) { pass(phase, piece, manner); });
}

void Step::pass(Phase phase, Piece piece, const Manner& manner) noexcept {
    switch (phase) {
        case Phase::raw_squares:
            return add_squares(Squares::raw, piece, manner);
        case Phase::squares:
            return add_squares(Squares::accumulated, piece, manner);
        case Phase::tell:
            return tell_parts(piece, manner);
        case Phase::renew:
            return renew_parts(piece);
        case Phase::sums:
            return measure(piece, manner);
        case Phase::lend:
        case Phase::update:
            if (watch) return run_watched_kernels(phase, piece, manner);
            return run_kernels(phase, piece, manner);
    }
}

void Step::conclude(Phase phase) noexcept {
    switch (phase) {
        case Phase::raw_squares:
            finish_norms();
            skipped = skip_nonfinite && !finite();
            if (!has_accumulated_) clip();
            if (skipped && counts_nonfinite()) tell_nonfinite();
            // Of others' blocks, too: each has to be counted once when sums are shared again.
            std::fill(block_sums_.begin(), block_sums_.end(), 0.0);
            return;
        case Phase::squares:
            finish_norms();
            return clip();
        case Phase::tell:
        case Phase::renew:
            return;
        case Phase::sums:
            return complete();
        case Phase::lend:
            for (Work& work : works)
                if (plans[work.plan].lend.kernel) work.take_update();
            has_taken_ = true;
            return;
        case Phase::update:
            if (watch) finish_watching();
            return;
    }
}

namespace {

/// Calls visit(block) for those blocks of elements that belong to a piece's rows and have some of
/// them: each is one piece's.
template <class Visit>
void for_each_block_of_rows(const TouchedRows& touched, std::size_t first, std::size_t last,
                            Visit visit) {
    const std::vector<std::uint32_t>& ids = *touched.ids;
    const std::size_t length = touched.length;
    // A piece's blocks begin after the last one that has elements of the row before it.
    const auto begin_at = [&](std::size_t k) {
        return k == 0 ? 0 : (ids[k - 1] * length + length - 1) / block_elements + 1;
    };
    std::size_t block = begin_at(first / length);
    for (std::size_t k = first / length; k < last / length; ++k) {
        const std::size_t end = (ids[k] * length + length - 1) / block_elements + 1;
        for (block = std::max(block, ids[k] * length / block_elements); block < end; ++block)
            visit(block);
    }
}

}  // namespace

/// Calls visit(k, first, last) for a piece's elements of each part.
template <class Unit, class Visit>
void Step::for_each_part(Piece piece, Unit unit_of, Visit visit) noexcept {
    for_each_in(
        piece, span_elements(), works.size(), [&](std::size_t k) { return starts_[k]; },
        [&](std::size_t k) { return unit_of(works[k]); }, visit);
}

Span Step::span_elements() const {
    if (span_ends_.empty() || phase() == Phase::renew) return {0, starts_.back()};
    return {span_ == 0 ? 0 : span_ends_[span_ - 1], span_ends_[span_]};
}

/// The first block of an array of which a part has some elements from one on.
std::size_t Step::block_of(std::size_t part, std::size_t start) const {
    return first_blocks_[part] + (works[part].layout->first_element + start) / block_elements;
}

void Step::add_squares(Squares what, Piece piece, const Manner& manner) noexcept {
    const auto unit = [](const Work& work) {
        return work.touched ? work.touched->length : block_elements;
    };
    for_each_part(piece, unit, [&](std::size_t k, std::size_t first, std::size_t last) {
        const Work& work = works[k];
        const Plan& plan = plans[work.plan];
        if (!work.grad.data) return;
        const auto add_block = [&](std::size_t start) {
            const std::size_t count = std::min(block_elements, work.layout->size - start);
            const std::size_t block = block_of(k, start);
            double& sum = block_sums_[block];
            sum = sum_of_squares(work, plan, what, start, count, manner.bytes_ahead);
            if (std::isfinite(sum)) return;
            sum = -careful_norm(work, plan, what, start, count);
            if (what == Squares::raw && counts_nonfinite() && !std::isfinite(sum))
                watched_sums_[block].nonfinite = count_nonfinite(work, plan, start, count);
        };
        if (work.touched)
            return for_each_block_of_rows(*work.touched, first, last, [&](std::size_t block) {
                add_block(block * block_elements);
            });
        for (std::size_t start = first; start < last; start += block_elements) add_block(start);
    });
}

/// From the sums of blocks to the norm of a part.
template <class SumOf>
double Step::norm_of(std::size_t part, SumOf sum_of) const noexcept {
    double sum = 0;
    bool is_careful = false;
    const std::size_t first = first_blocks_[part], last = first_blocks_[part + 1];
    for (std::size_t block = first; block < last; ++block) {
        const double its_sum = sum_of(block);
        is_careful |= !(its_sum >= 0);
        sum += its_sum;
    }
    if (!is_careful && std::isfinite(sum)) return std::sqrt(sum);
    return scaled_norm([&](auto visit) {
        for (std::size_t block = first; block < last; ++block) {
            const double its_sum = sum_of(block);
            visit(its_sum >= 0 ? std::sqrt(its_sum) : -its_sum);
        }
    });
}

/// From the sums of blocks to each part's norm.
void Step::finish_norms() noexcept {
    for (std::size_t k = 0; k < works.size(); ++k)
        norms_[k] = norm_of(k, [&](std::size_t block) { return block_sums_[block]; });
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
        const double clipnorm = plan.around.group.clipnorm;
        norms_[k] *= std::abs(plan.around.scale);
        if (norms_[k] > clipnorm)
            works[k].block.factors = clipped(works[k], plan, norms_[k], clipnorm);
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
void Step::measure(Piece piece, const Manner& manner) noexcept {
    const auto unit = [](const Work&) { return block_elements; };
    for_each_part(piece, unit, [&](std::size_t k, std::size_t first, std::size_t last) {
        const Work& work = works[k];
        const Plan& plan = plans[work.plan];
        if (!plan.measure) return;
        const auto sum_count = static_cast<std::size_t>(plan.rule->info.sum_count);
        for (std::size_t start = first; start < last; start += block_elements) {
            double lanes[max_sums * sum_lanes];
            std::fill_n(lanes, sum_count * sum_lanes, 0.0);
            const std::size_t count = std::min(block_elements, last - start);
            // Where kernels may see rows, sums end with rows and tiles, whichever they see.
            const std::size_t row = work.parts ? work.parts->long_row() : 0;
            std::size_t at = start;
            const auto measure_block = [&](const Block& block, const Block&) {
                const std::size_t end = at + block.count;
                for (const std::size_t before = at; at < end;) {
                    std::size_t length = end - at;
                    if (row)
                        length = std::min(
                            {length, row - at % row, tile_elements - (at - start) % tile_elements});
                    const Block part = part_of(block, work.precision(), at - before, length);
                    plan.measure(part, manner.bytes_ahead, plan.update.coefficients, lanes);
                    at += length;
                }
            };
            for_each_tile(work, start, count, all_streams, 0, work.block, measure_block);
            double* const sums = &rule_sums_[max_sums * block_of(k, start)];
            for (std::size_t s = 0; s < sum_count; ++s)
                sums[s] = sum_of_lanes(lanes + s * sum_lanes);
        }
    });
}

/// Tells rules their sums.
void Step::complete() noexcept {
    double all[max_sums] = {}, all_elements = 0;
    const auto add = [&](std::size_t k, double* sums) {
        for (std::size_t block = first_blocks_[k]; block < first_blocks_[k + 1]; ++block)
            for (std::size_t s = 0; s < max_sums; ++s) sums[s] += rule_sums_[max_sums * block + s];
    };
    for (std::size_t k = 0; k < works.size(); ++k) {
        if (!plans[works[k].plan].measure) continue;
        add(k, all);
        all_elements += static_cast<double>(works[k].layout->whole_size);
    }
    for (std::size_t k = 0; k < works.size(); ++k) {
        Plan& plan = plans[works[k].plan];
        if (!plan.measure) continue;
        const unsigned over_all = plan.rule->info.sums_over_all;
        Sums sums{{}, static_cast<double>(works[k].layout->whole_size), all_elements};
        if (!plan.rule->info.is_over_all()) add(k, sums.values);
        for (std::size_t s = 0; s < max_sums; ++s)
            if (over_all >> s & 1) sums.values[s] = all[s];
        plan.rule->in(works[k].precision()).complete(sums, plan.scalars, &plan.update.coefficients);
    }
}

/// Lets gradients tell the parts of slots.
void Step::tell_parts(Piece piece, const Manner& manner) noexcept {
    const auto unit = [](const Work& work) {
        return work.parts ? work.parts->chunk_elements() : tile_elements;
    };
    for_each_part(piece, unit, [&](std::size_t k, std::size_t first, std::size_t last) {
        SeenParts* const parts = works[k].parts;
        if (!parts) return;
        for (std::size_t start = first; start < last; start += parts->chunk_elements())
            parts->fold(works[k], plans[works[k].plan], start / parts->chunk_elements(),
                        manner.bytes_ahead);
    });
}

/// Renews the parts of slots: all of an array's at once.
void Step::renew_parts(Piece piece) noexcept {
    const auto unit = [](const Work& work) { return work.block.count; };
    for_each_part(piece, unit, [&](std::size_t k, std::size_t, std::size_t) {
        if (works[k].parts) works[k].parts->renew(plans[works[k].plan]);
    });
}

void Step::run_watched_kernels(Phase phase, Piece piece, const Manner& manner) noexcept {
    const Pass pass = pass_of(phase);
    const auto unit = [](const Work& work) {
        return work.touched ? work.touched->length : block_elements;
    };
    for_each_part(piece, unit, [&](std::size_t k, std::size_t first, std::size_t last) {
        const Work& work = works[k];
        const Plan& plan = plans[work.plan];
        const Operation operation{&(plan.*pass.call), pass.used, pass.written};
        if (!operation.call->kernel) return;
        if (work.touched) {
            const std::size_t length = work.touched->length;
            return update_rows(operation, work, first / length, last / length);
        }
        // Of an update that somebody else has made, the gradient was seen when it was lent.
        const bool sees_gradient =
            work.grad.data && plan.has_gradient && (phase == Phase::lend || !plan.lend.kernel);
        unsigned seen = watch;
        if (!sees_gradient) seen &= ~(watch_grad_norm | watch_nonfinite);
        if (has_norms_) seen &= ~watch_grad_norm;
        if (phase == Phase::lend) seen &= ~(watch_update_norm | watch_param_norm);
        const Block& next = works[std::min(k + 1, works.size() - 1)].block;
        for (std::size_t start = first; start < last; start += block_elements) {
            const std::size_t count = std::min(block_elements, last - start);
            const Block rest = part_of(work.block, work.precision(), start + count, 0);
            const WatchedSums sums =
                run_watched(operation, work, plan, start, count,
                            {start + count < work.block.count ? rest : next, manner}, seen);
            WatchedSums& all = watched_sums_[block_of(k, start)];
            all.grad += sums.grad;
            all.nonfinite += sums.nonfinite;
            all.update += sums.update;
            all.param += sums.param;
        }
    });
}

/// From the sums of blocks to what was watched of each part.
void Step::finish_watching() noexcept {
    for (std::size_t k = 0; k < works.size(); ++k) {
        const Plan& plan = plans[works[k].plan];
        if (!plan.has_gradient) continue;
        WatchedSums all;
        for (std::size_t block = first_blocks_[k]; block < first_blocks_[k + 1]; ++block) {
            all.nonfinite += watched_sums_[block].nonfinite;
            all.update += watched_sums_[block].update;
            all.param += watched_sums_[block].param;
        }
        if (!has_norms_)
            norms_[k] = norm_of(k, [&](std::size_t block) { return watched_sums_[block].grad; }) *
                        std::abs(plan.around.scale);
        Watched& seen = watched[k];
        if (works[k].touched)
            all.nonfinite = std::isfinite(norms_[k])
                                ? 0
                                : count_nonfinite(works[k], plan, 0, works[k].layout->size);
        if (watch & watch_grad_norm) seen.grad_norm = norms_[k];
        if (watch & watch_nonfinite) seen.nonfinite = all.nonfinite;
        if (watch & watch_update_norm) seen.update_norm = std::sqrt(all.update);
        if (watch & watch_param_norm) seen.param_norm = std::sqrt(all.param);
    }
    if (watch & watch_grad_norm && !wants_norm)
        grad_norm = scaled_norm([&](auto visit) {
            for (std::size_t k = 0; k < works.size(); ++k)
                if (plans[works[k].plan].has_gradient) visit(norms_[k]);
        });
}

/// How many elements of gradients are not finite, where that is why a step is skipped.
void Step::tell_nonfinite() noexcept {
    for (std::size_t k = 0; k < works.size(); ++k) {
        if (!works[k].raw_gradient) continue;
        double& count = watched[k].nonfinite = 0;
        for (std::size_t block = first_blocks_[k]; block < first_blocks_[k + 1]; ++block)
            count += watched_sums_[block].nonfinite;
    }
}

void Step::run_kernels(Phase phase, Piece piece, const Manner& manner) noexcept {
    const Pass pass = pass_of(phase);
    const auto rows_of = [](const Work& work) {
        const bool is_read_by_rows =
            work.buffered & bit(grad_stream) && !work.layout->has_blocks && work.grad.strides;
        return Transposed(work.layout->shape, is_read_by_rows ? work.grad : Stream());
    };
    const auto unit = [&](const Work& work) {
        if (work.touched) return work.touched->length;
        const std::size_t row = work.buffered ? rows_of(work).length : 0;
        return row ? row : tile_elements;
    };
    // Whole arrays that are updated alike go together.
    std::size_t begin = 0, end = 0;
    const auto run_whole = [&] {
        if (begin == end) return;
        const Call& call = plans[works[begin].plan].*pass.call;
        const Block& after = works[std::min(end, works.size() - 1)].block;
        if (call.kernel) call({&works[begin].block, end - begin, sizeof(Work)}, {after, manner});
        begin = end;
    };
    for_each_part(piece, unit, [&](std::size_t k, std::size_t first, std::size_t last) {
        const Work& work = works[k];
        const bool is_direct = !work.buffered && !work.has_copy && !work.touched;
        if (is_direct && pass.used == all_streams && first == 0 && last == work.block.count) {
            if (k != end || work.plan != works[begin].plan) {
                run_whole();
                begin = k;
            }
            end = k + 1;
            return;
        }
        run_whole();
        const Plan& plan = plans[work.plan];
        const Call& call = plan.*pass.call;
        if (!call.kernel) return;
        if (work.touched) {
            const std::size_t length = work.touched->length;
            return update_rows({&call, pass.used, pass.written}, work, first / length,
                               last / length);
        }
        const Block& next = works[std::min(k + 1, works.size() - 1)].block;
        if (phase == Phase::update && work.is_coded(plan)) {
            const CodedBlock part = work.coded_part(first, last - first);
            const Block rest = work.coded_part(last, work.block.count - last);
            return plan.update_coded(part, {rest.count ? rest : next, manner}, call.coefficients);
        }
        const Block rest = part_of(work.block, work.precision(), last, work.block.count - last);
        const Ahead ahead{rest.count ? rest : next, manner};
        if (const Transposed rows = rows_of(work); rows.length)
            return run_rows(call, pass, work, rows, first, last, ahead);
        run_range(call, pass, work, first, last, ahead);
    });
    run_whole();
}

}  // namespace instep
