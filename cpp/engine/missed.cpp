#include "engine/missed.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "engine/crew.h"
#include "engine/float_mode.h"
#include "engine/threads.h"
#include "engine/tiles.h"

namespace instep {
namespace {

/// So many rows, or parts of rows, are updated by one call of a kernel.
constexpr std::size_t most_blocks = 64;
/// Rows are fetched while as many before them are updated.
constexpr std::size_t rows_ahead = 3;

alignas(64) constexpr char zeros[tile_elements * sizeof(double)] = {};

/// Whether kernels can read the rows of all streams where they lie; of the gradient others see to
/// that.
bool is_direct(const Work& work) {
    return !(work.buffered & ~bit(grad_stream)) && !work.has_copy && !work.layout->has_blocks;
}

}  // namespace

/// Updates rows one after the other: those of which all streams lie in memory as kernels read them
/// many at a time, others each on its own.
class RowUpdates {
public:
    /// `operation`: null where rows get nothing but what they have missed.
    RowUpdates(const Work& work, const Operation* operation, std::size_t length,
               MissedUpdates* missed)
        : work_(work),
          operation_(operation),
          precision_(work.precision()),
          item_(itemsize(format_of(precision_))),
          length_(length),
          missed_(missed && missed->any() ? missed : nullptr),
          clock_(missed),
          is_direct_(is_direct(work)) {
        if (clock_) had_afterwards_ = static_cast<std::uint32_t>(clock_->missed_.size());
        if (operation) had_afterwards_ += work.touched->others_miss;
    }

    /// Rows number [first, last), of which row_at(k) is the k-th.
    template <class RowAt>
    void run(std::size_t first, std::size_t last, RowAt row_at) {
        const Rows* const rows = work_.grad.rows;
        std::size_t named = rows && first < last ? rows->find(row_at(first)) : 0;
        if (rows) fetch_values(named);
        for (std::size_t k = first; k < last; ++k) {
            const std::size_t row = row_at(k);
            const bool is_named = rows && named < rows->ids().size() && rows->ids()[named] == row;
            const std::size_t next = k + 1 < last ? row_at(k + 1) : row;
            if (is_direct_ && k + rows_ahead < last && clock_) fetch_clock(row_at(k + rows_ahead));
            for (std::size_t start = 0; start < length_; start += tile_elements) {
                const std::size_t count = std::min(tile_elements, length_ - start);
                const bool is_last = start + count == length_;
                if (is_direct_)
                    add(row, start, count, is_named ? &named : nullptr, is_last, next);
                else
                    update(row, start, count, is_named ? &named : nullptr);
            }
            if (!is_direct_ && clock_) clock_->had_[row] = had_afterwards_;
            if (is_named) fetch_values(++named + most_blocks / 8);
        }
        if (count_) flush(blocks_[0]);
    }

private:
    /// Fetches the values of a row that is to come where they must be added up before.
    void fetch_values(std::size_t named) const {
        const Rows& rows = *work_.grad.rows;
        if (named < rows.ids().size() && (!rows.single(named) || !is_direct_)) rows.fetch(named);
    }
    void fetch_clock(std::size_t row) const {
#if defined(__GNUC__)
        __builtin_prefetch(&clock_->had_[row]);
#endif
    }

    /// Elements of a row with its gradient, which may have to be added up into `buffer`.
    Block block_at(std::size_t row, std::size_t start, std::size_t count, const std::size_t* named,
                   char* buffer) const {
        Block block = part_of(work_.block, precision_, row * length_ + start, count);
        if (!work_.grad.rows) {
            if (!work_.grad.data || work_.grad.contiguous()) return block;
            block.data[grad_stream] = buffer;
            block.grad_format = format_of(precision_);
            if (buffer)
                gather(work_.layout->shape, work_.grad, row * length_ + start, count, precision_,
                       buffer);
            return block;
        }
        const Rows& rows = *work_.grad.rows;
        block.grad_format = format_of(precision_);
        if (!named) {
            block.data[grad_stream] = const_cast<char*>(zeros);
        } else if (char* const values = rows.single(*named)) {
            block.grad_format = rows.format;
            block.data[grad_stream] = values + start * itemsize(rows.format);
        } else {
            block.data[grad_stream] = buffer ? buffer : const_cast<char*>(zeros);
            if (buffer) rows.sum(*named, start, count, precision_, buffer);
        }
        return block;
    }

    void add(std::size_t row, std::size_t start, std::size_t count, const std::size_t* named,
             bool is_last, std::size_t next) {
        const std::size_t bytes = count * item_;
        if (count_ == most_blocks || summed_ + bytes > sizeof sums_)
            flush(block_at(row, start, count, nullptr, nullptr));
        Block& block = blocks_[count_];
        block = block_at(row, start, count, named, sums_ + summed_);
        if (block.data[grad_stream] == sums_ + summed_) summed_ += (bytes + 63) / 64 * 64;
        rows_[count_] = row;
        starts_[count_] = start;
        is_last_[count_] = is_last;
        ++count_;
        if (count_ == most_blocks)
            flush(block_at(next, 0, std::min(tile_elements, length_), nullptr, nullptr));
    }

    void flush(const Block& after) {
        if (missed_) catch_up();
        if (operation_) {
            const Manner manner{rows_ahead * blocks_[0].count * item_, true};
            (*operation_->call)({blocks_, count_, sizeof(Block)}, {after, manner});
        }
        if (operation_ && work_.touched->clears)
            for (std::size_t k = 0; k < count_; ++k)
                clear_accumulated(rows_[k] * length_ + starts_[k], blocks_[k].count);
        if (clock_)
            for (std::size_t k = 0; k < count_; ++k)
                if (is_last_[k]) clock_->had_[rows_[k]] = had_afterwards_;
        count_ = summed_ = 0;
    }

    void clear_accumulated(std::size_t first, std::size_t count) const {
        scatter(work_.layout->shape, work_.layout->streams[accumulated_stream], first, count,
                precision_, zeros);
    }

    /// Lets the blocks have what their rows have missed: those that are farthest behind first.
    void catch_up() {
        const std::vector<Missed>& missed = missed_->missed_;
        std::array<std::size_t, most_blocks> order;
        std::size_t behind = 0;
        for (std::size_t k = 0; k < count_; ++k)
            if (clock_->had_[rows_[k]] < missed.size() && !rests(k)) order[behind++] = k;
        if (behind == 0) return;
        const auto had = [&](std::size_t k) { return clock_->had_[rows_[k]]; };
        std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(behind),
                  [&](std::size_t a, std::size_t b) { return had(a) < had(b); });
        for (std::size_t k = 0; k < behind; ++k) {
            Block& block = late_[k];
            block = blocks_[order[k]];
            block.data[grad_stream] = const_cast<char*>(zeros);
            block.data[accumulated_stream] = nullptr;
            block.grad_format = format_of(precision_);
        }
        std::size_t late = 0;
        for (std::size_t update = had(order[0]); update < missed.size(); ++update) {
            while (late < behind && had(order[late]) <= update) ++late;
            const Missed& one = missed[update];
            for (std::size_t k = 0; k < late; ++k) late_[k].factors = one.factors;
            one.call({late_, late, sizeof(Block)}, {late_[0], {}});
        }
    }

    /// Whether what a row has missed leaves it alone.
    bool rests(std::size_t k) const {
        if (clock_->had_[rows_[k]] < missed_->last_that_acts_) return false;
        for (int s = first_slot; s < stream_count; ++s) {
            const char* const slot = static_cast<const char*>(blocks_[k].data[s]);
            if (slot && std::memcmp(slot, zeros, blocks_[k].count * item_) != 0) return false;
        }
        return true;
    }

    /// Elements of a row that go through buffers.
    void update(std::size_t row, std::size_t start, std::size_t count, const std::size_t* named) {
        const std::size_t first = row * length_ + start;
        Work part = work_;
        part.buffered &= ~bit(grad_stream);
        const auto with_gradient = [&](char* data, Format format) {
            part.grad = Stream{data, format};
            part.block.grad_format = format;
            part.block.data[grad_stream] =
                data - static_cast<std::ptrdiff_t>(first * itemsize(format));
        };
        if (missed_) {
            with_gradient(const_cast<char*>(zeros), format_of(precision_));
            const std::vector<Missed>& missed = missed_->missed_;
            for (std::size_t k = clock_->had_[row]; k < missed.size(); ++k) {
                part.block.factors = missed[k].factors;
                part.noise_key = missed[k].noise_key;
                run(missed[k].call, missed[k].used, missed[k].written, part, first, count);
            }
        }
        if (!operation_) return;
        part.block.factors = work_.block.factors;
        part.noise_key = work_.noise_key;
        part.grad = work_.grad;
        if (part.grad.data) {
            const Block block = block_at(row, start, count, named, sums_);
            with_gradient(static_cast<char*>(block.data[grad_stream]), block.grad_format);
        }
        run(*operation_->call, operation_->used, operation_->written, part, first, count);
        if (work_.touched->clears) clear_accumulated(first, count);
    }
    static void run(const Call& call, unsigned used, unsigned written, const Work& part,
                    std::size_t first, std::size_t count) {
        for_each_tile(part, first, count, used, written, part.block,
                      [&](const Block& block, const Block& next) { call({&block}, {next, {}}); });
    }

    const Work& work_;
    const Operation* operation_;
    Precision precision_;
    std::size_t item_, length_;
    MissedUpdates *missed_, *clock_;
    bool is_direct_;
    std::uint32_t had_afterwards_ = 0;

    std::size_t count_ = 0, summed_ = 0;
    std::array<std::size_t, most_blocks> rows_, starts_;
    std::array<bool, most_blocks> is_last_;
    Block blocks_[most_blocks], late_[most_blocks];
    alignas(64) char sums_[2 * tile_elements * sizeof(double)];
};

void MissedUpdates::reserve(std::size_t rows) {
    missed_.reserve(missed_.size() + 1 > missed_.capacity()
                        ? std::max<std::size_t>(2 * missed_.capacity(), 16)
                        : missed_.capacity());
    had_.resize(rows);
}

void MissedUpdates::add(const Missed& update) noexcept {
    missed_.push_back(update);
    if (!update.rests_at_zero) last_that_acts_ = missed_.size();
}

void MissedUpdates::settle(const Layout& layout) noexcept {
    if (!any()) return;
    unsigned used = 0;
    for (const Missed& each : missed_) used |= each.used;
    const Work work(layout, param_stream, used & ~bit(accumulated_stream), Stream(), false, 0);
    std::size_t bytes = 0;
    for (int s = 0; s < stream_count; ++s)
        if (work.block.data[s] && s != grad_stream) bytes += work.stream(s).bytes(layout.size);
    const FlushSubnormals flushing;
    const int threads = threads_for(bytes);
    for_each_piece(threads, piece_count(bytes, threads), [&](Piece piece, bool is_caller) {
        std::optional<FlushSubnormals> its_own;
        if (!is_caller) its_own.emplace();
        RowUpdates updates(work, nullptr, layout.row_length, this);
        const std::size_t rows = had_.size();
        updates.run(rows * piece.index / piece.count, rows * (piece.index + 1) / piece.count,
                    [](std::size_t row) { return row; });
    });
    missed_.clear();
    last_that_acts_ = 0;
    std::fill(had_.begin(), had_.end(), 0);
}

bool rests_at_zero(const Plan& plan, Precision precision) {
    const auto is_unchanged = [&]<class T>(T) {
        // Of these, too small ones tell of what is added, and the others of what is taken off.
        constexpr std::size_t count = 4;
        const T before[count] = {T(1), T(1.9999998), T(-1.25), T(1e-30)};
        T arrays[stream_count][count] = {};
        std::memcpy(arrays[param_stream], before, sizeof before);
        Block block{};
        for (const int s : {int{param_stream}, int{grad_stream}}) block.data[s] = arrays[s];
        for (int s = 0; s < max_slots; ++s)
            if (plan.slots >> s & 1) block.data[first_slot + s] = arrays[first_slot + s];
        block.count = count;
        block.grad_format = format_of(precision);
        block.factors = factors(plan.around.scale, precision == Precision::float32);
        const FlushSubnormals flushing;
        plan.update({&block}, {block, {}});
        bool is_zero = true;
        for (int s = first_slot; s < stream_count; ++s)
            for (const T x : arrays[s]) is_zero &= x == 0;
        return is_zero && std::memcmp(arrays[param_stream], before, sizeof before) == 0;
    };
    return precision == Precision::float32 ? is_unchanged(float()) : is_unchanged(double());
}

void update_rows(const Operation& operation, const Work& work, std::size_t first,
                 std::size_t last) noexcept {
    const TouchedRows& touched = *work.touched;
    RowUpdates updates(work, &operation, touched.length, touched.missed);
    updates.run(first, last, [&](std::size_t k) { return std::size_t{(*touched.ids)[k]}; });
}

}  // namespace instep
