#include "engine/missed.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "engine/crew.h"
#include "engine/fetch.h"
#include "engine/float_mode.h"
#include "engine/threads.h"
#include "engine/tiles.h"

namespace instep {
namespace {

alignas(64) constexpr char zeros[tile_elements * sizeof(double)] = {};

/// Whether kernels can read the rows of all streams where they lie; of the gradient others see to
/// that.
bool is_direct(const Work& work) {
    const int parts = work.layout->parts_stream;
    const unsigned others = bit(grad_stream) | (parts < 0 ? 0 : bit(parts));
    return !(work.buffered & ~others) && !work.has_copy;
}

/// The number that there is of a row, which its gradient changes.
class RowNumber {
public:
    RowNumber(const Work& work, std::size_t row)
        : part_(work.layout->parts[0]), precision_(work.precision()), row_(row) {}

    void fetch() const {
        if (const char* const at = in_place()) fetch_line(at);
    }
    /// Reads it, in the array's precision.
    void read(void* seen) const {
        if (const char* const at = in_place())
            std::memcpy(seen, at, part_.stream.item());
        else
            gather(part_.shape, part_.stream, row_, 1, precision_, seen);
    }
    /// Lets elements of the row tell it of their gradient.
    void tell(const Block& block, const Coefficients& coefficients, const PartKernels& kernels) {
        double* const all = &told_;
        kernels.fold(block, 0, coefficients, nullptr, false, &all, 1);
    }
    /// Writes what becomes of what was read, and what kernels see of that.
    void renew(const Coefficients& coefficients, const PartKernels& kernels, std::size_t elements,
               void* seen) {
        double becomes;
        kernels.renew(coefficients, &told_, 1, 1, static_cast<double>(elements), seen, &becomes, 1);
        if (char* const at = in_place())
            std::memcpy(at, &becomes, part_.stream.item());
        else
            scatter(part_.shape, part_.stream, row_, 1, precision_, &becomes);
    }

private:
    /// Where it lies as kernels compute; null: in another way.
    char* in_place() const {
        const Stream& numbers = part_.stream;
        const bool is_direct = numbers.contiguous() && numbers.coding == Coding::none &&
                               numbers.format == format_of(precision_);
        return is_direct ? numbers.data + row_ * numbers.item() : nullptr;
    }

    const Part& part_;
    Precision precision_;
    std::size_t row_;
    double told_ = 0;
};

}  // namespace

bool MissedUpdates::any_row() const {
    return any() && std::any_of(had_.begin(), had_.end(),
                                [this](std::uint32_t had) { return had < missed_.size(); });
}

/// What rows have had, and are to have.
class RowClock {
public:
    RowClock(MissedUpdates* missed, bool others_miss)
        : missed_(missed), afterwards_(missed ? missed->missed_.size() + others_miss : 0) {}

    const std::vector<Missed>& updates() const { return missed_->missed_; }
    bool is_behind(std::size_t row) const {
        return missed_ && missed_->had_[row] < missed_->missed_.size();
    }
    std::size_t had(std::size_t row) const { return missed_ ? missed_->had_[row] : 0; }
    /// Whether there are such among them as act on rows whose state is zero.
    bool acts_at_zero(std::size_t row) const {
        return missed_->had_[row] < missed_->last_that_acts_;
    }
    void set(std::size_t row) const {
        if (missed_) missed_->had_[row] = static_cast<std::uint32_t>(afterwards_);
    }
    void fetch(std::size_t row) const {
        if (missed_) fetch_line(&missed_->had_[row]);
    }

private:
    MissedUpdates* missed_;
    std::size_t afterwards_;
};

namespace {

/// Rows that a work has or is to get gradients for, in ascending order.
class RowGradients {
public:
    RowGradients(const Work& work, std::size_t length, std::size_t first_row)
        : work_(work),
          rows_(work.grad.rows),
          length_(length),
          item_(itemsize(format_of(work.precision()))),
          next_(rows_ ? rows_->find(first_row) : 0) {}

    /// Goes to a row, which comes after the one before.
    void go_to(std::size_t row) {
        row_ = row;
        if (!rows_) return;
        const std::vector<std::uint32_t>& ids = rows_->ids();
        while (next_ < ids.size() && ids[next_] < row) ++next_;
        is_named_ = next_ < ids.size() && ids[next_] == row;
        if (next_ + ahead < ids.size()) rows_->fetch(next_ + ahead);
    }
    /// Where its gradient lies in one piece, and in which format; null: it must be read.
    const char* in_place(Format& format) const {
        format = format_of(work_.precision());
        if (!rows_) {
            if (!work_.grad.contiguous()) return nullptr;
            format = work_.block.grad_format;
            return static_cast<const char*>(work_.block.data[grad_stream]) +
                   row_ * length_ * itemsize(format);
        }
        if (!is_named_ || !rows_->single(next_)) return nullptr;
        format = rows_->format;
        return rows_->single(next_);
    }
    /// Whether those of the row named next lie behind it.
    bool is_followed() const {
        if (!rows_ || next_ + 1 >= rows_->ids().size()) return false;
        const char *const here = rows_->single(next_), *const there = rows_->single(next_ + 1);
        return here && there && there == here + length_ * itemsize(rows_->format);
    }
    /// Elements [start, start + count) of it, as kernels compute.
    void read(std::size_t start, std::size_t count, void* to) const {
        if (!rows_)
            gather(work_.layout->shape, work_.grad, row_ * length_ + start, count,
                   work_.precision(), to);
        else if (is_named_)
            rows_->sum(next_, start, count, work_.precision(), to);
        else
            std::memset(to, 0, count * item_);
    }

private:
    static constexpr std::size_t ahead = 8;  ///< rows whose values are fetched meanwhile

    const Work& work_;
    const Rows* rows_;
    std::size_t length_, item_, next_, row_ = 0;
    bool is_named_ = false;
};

/// What is done to rows.
struct RowUpdate {
    const Work& work_;
    const Operation* operation_;  ///< null: nothing but what they have missed
    std::size_t length_;          ///< elements of a row
    RowClock clock_;
    Precision precision_ = work_.precision();
    std::size_t item_ = itemsize(format_of(precision_));

    /// Makes what was accumulated of elements zero, where it has been used.
    void clear_accumulated(std::size_t first, std::size_t count) const {
        if (operation_ && work_.touched->clears)
            clear(work_.layout->shape, work_.layout->streams[accumulated_stream], first, count,
                  precision_);
    }
};

/// Updates rows where they lie, many at a time: neighbours together.
class RowsInPlace : RowUpdate {
public:
    explicit RowsInPlace(const RowUpdate& update) : RowUpdate(update) {}

    /// Takes a row at which the gradients are; `next` is the one that follows, or the same.
    void add(std::size_t row, const RowGradients& gradients, std::size_t next) {
        Format format = format_of(precision_);
        const char* const in_place = operation_ ? gradients.in_place(format) : nullptr;
        for (std::size_t start = 0; start < length_; start += tile_elements) {
            const std::size_t count = std::min(tile_elements, length_ - start);
            if (count_ == most_blocks || read_ + count * item_ > sizeof gradients_)
                flush(part_of(work_.block, precision_, row * length_ + start, 0));
            const char* gradient = in_place ? in_place + start * itemsize(format) : nullptr;
            const bool joins = joins_last(row, count);
            // Rows whose values lie elsewhere are one block where these are brought together.
            if (!(joins && extends_last(gradient, format)) && operation_ &&
                (!gradient || (joins && is_read_[count_ - 1]) ||
                 (next == row + 1 && !gradients.is_followed()))) {
                gradient = gradients_ + read_;
                format = format_of(precision_);
                gradients.read(start, count, gradients_ + read_);
                read_ += count * item_;
            }
            if (joins && extends_last(gradient, format)) {
                blocks_[count_ - 1].count += count;
                rows_[count_ - 1].count += 1;
                continue;
            }
            Block& block = blocks_[count_];
            block = part_of(work_.block, precision_, row * length_ + start, count);
            if (operation_) {
                block.data[grad_stream] = const_cast<char*>(gradient);
                block.grad_format = format;
            }
            if (clock_.is_behind(row))  // they are used before the kernel can fetch what comes
                for (int s = 0; s < stream_count; ++s)
                    if (s != grad_stream && block.data[s]) fetch(block.data[s], count * item_);
            is_read_[count_] = gradients_ <= gradient && gradient < gradients_ + sizeof gradients_;
            rows_[count_++] = {row, 1, start, start + count == length_};
        }
    }
    void flush() {
        if (count_) flush(blocks_[0]);
    }

private:
    static constexpr std::size_t most_blocks = 64;
    /// Rows are fetched while as many before them are updated.
    static constexpr std::size_t rows_ahead = 3;

    struct Run {
        std::size_t row, count;
        std::size_t start;  ///< within the first row
        bool is_whole;      ///< or the end of a row
    };

    /// Lets rows' gradients change the numbers that there are of them, and the kernel see those.
    /// All are read first, as reads don't wait for each other, and the rows are fetched meanwhile.
    void see_numbers() {
        const Coefficients& coefficients = operation_->call->coefficients;
        for (std::size_t k = 0; k < count_; ++k) RowNumber(work_, rows_[k].row).read(&numbers_[k]);
        for (std::size_t k = 0; k < count_; ++k) {
            Block& block = blocks_[k];
            fetch(block.data[param_stream], block.count * item_);
            RowNumber number(work_, rows_[k].row);
            number.tell(block, coefficients, *work_.touched->parts);
            number.renew(coefficients, *work_.touched->parts, length_, &numbers_[k]);
            block.common = &numbers_[k];
            block.data[work_.layout->parts_stream] = const_cast<char*>(zeros);
        }
    }

    bool joins_last(std::size_t row, std::size_t count) const {
        if (count_ == 0 || length_ > tile_elements) return false;
        if (operation_ && work_.touched->parts) return false;
        const Run& last = rows_[count_ - 1];
        return last.row + last.count == row && blocks_[count_ - 1].count + count <= tile_elements &&
               clock_.had(last.row) == clock_.had(row);
    }
    bool extends_last(const char* gradient, Format format) const {
        const Block& last = blocks_[count_ - 1];
        return !operation_ ||
               (last.grad_format == format &&
                static_cast<const char*>(last.data[grad_stream]) + last.count * itemsize(format) ==
                    gradient);
    }

    void flush(const Block& after) {
        catch_up();
        if (operation_ && work_.touched->parts) see_numbers();
        if (operation_) {
            const Manner manner{rows_ahead * length_ * item_, true};
            (*operation_->call)({blocks_, count_, sizeof(Block)}, {after, manner});
        }
        for (std::size_t k = 0; k < count_; ++k) {
            clear_accumulated(rows_[k].row * length_ + rows_[k].start, blocks_[k].count);
            for (std::size_t row = 0; rows_[k].is_whole && row < rows_[k].count; ++row)
                clock_.set(rows_[k].row + row);
        }
        count_ = read_ = 0;
    }
    /// Lets the blocks have what their rows have missed: those that are farthest behind first.
    void catch_up() {
        std::array<std::size_t, most_blocks> order;
        std::size_t behind = 0;
        for (std::size_t k = 0; k < count_; ++k)
            if (clock_.is_behind(rows_[k].row) && !rests(k)) order[behind++] = k;
        if (behind == 0) return;
        const auto had = [&](std::size_t k) { return clock_.had(rows_[order[k]].row); };
        std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(behind),
                  [&](std::size_t a, std::size_t b) {
                      return clock_.had(rows_[a].row) < clock_.had(rows_[b].row);
                  });
        for (std::size_t k = 0; k < behind; ++k) {
            Block& block = late_[k];
            block = blocks_[order[k]];
            block.data[grad_stream] = const_cast<char*>(zeros);
            block.data[accumulated_stream] = nullptr;
            block.grad_format = format_of(precision_);
        }
        std::size_t late = 0;
        for (std::size_t update = had(0); update < clock_.updates().size(); ++update) {
            while (late < behind && had(late) <= update) ++late;
            const Missed& one = clock_.updates()[update];
            for (std::size_t k = 0; k < late; ++k) late_[k].factors = one.factors;
            one.call({late_, late, sizeof(Block)}, {late_[0], {}});
        }
    }
    /// Whether what a block's rows have missed leaves them alone.
    bool rests(std::size_t k) const {
        if (clock_.acts_at_zero(rows_[k].row)) return false;
        for (int s = first_slot; s < stream_count; ++s) {
            const void* const slot = blocks_[k].data[s];
            if (slot && std::memcmp(slot, zeros, blocks_[k].count * item_) != 0) return false;
        }
        return true;
    }

    std::size_t count_ = 0, read_ = 0;
    std::array<Run, most_blocks> rows_;
    std::array<bool, most_blocks> is_read_;    ///< whether the gradient is in `gradients_`
    std::array<double, most_blocks> numbers_;  ///< of rows, in the array's precision
    Block blocks_[most_blocks], late_[most_blocks];
    alignas(64) char gradients_[2 * tile_elements * sizeof(double)];
};

/// Updates rows in buffers, a tile of them at a time: short ones, and those that kernels can't read
/// where they lie.
class RowsInBuffers : RowUpdate {
public:
    explicit RowsInBuffers(const RowUpdate& update) : RowUpdate(update) {}

    void add(std::size_t row, const RowGradients& gradients, std::size_t) {
        for (std::size_t start = 0; start < length_; start += tile_elements) {
            const std::size_t count = std::min(tile_elements, length_ - start);
            if (elements_ + count > tile_elements) flush();
            if (operation_) gradients.read(start, count, given_ + elements_ * item_);
            if (has_row_numbers()) {
                if (start == 0) tell(row, gradients);
                const void* const number = number_;
                work_.touched->parts->combine(nullptr, 0, &number, 1, seen_ + elements_ * item_,
                                              count);
            }
            Run* const last = count_ ? &runs_[count_ - 1] : nullptr;
            if (last && last->element + last->elements == row * length_ + start && start == 0 &&
                clock_.had(row) == last->had) {
                last->elements += count;
                ++last->rows;
            } else {
                runs_[count_++] = {
                    row * length_ + start,   count, elements_, row, 1, clock_.had(row),
                    start + count == length_};
            }
            elements_ += count;
        }
    }
    void flush() {
        if (count_ == 0) return;
        // Those that are farthest behind come first: all that are to have an update are together.
        const auto is_before = [](const Run& a, const Run& b) { return a.had < b.had; };
        const auto end = runs_.begin() + static_cast<std::ptrdiff_t>(count_);
        if (!std::is_sorted(runs_.begin(), end, is_before))
            std::sort(runs_.begin(), end, is_before);
        for (int s = 0; s < stream_count; ++s)
            if (s != grad_stream && work_.block.data[s]) read(s, count_);
        catch_up();
        if (operation_) {
            std::size_t at = 0;
            for (std::size_t k = 0; k < count_; at += runs_[k++].elements) {
                const std::size_t from = runs_[k].given * item_, bytes = runs_[k].elements * item_;
                std::memcpy(buffers_[grad_stream] + at * item_, given_ + from, bytes);
                if (has_row_numbers())
                    std::memcpy(buffers_[work_.layout->parts_stream] + at * item_, seen_ + from,
                                bytes);
            }
            Block block = block_of(elements_);
            block.factors = work_.block.factors;
            (*operation_->call)({&block}, {block, {}});
            write(operation_->written & ~bit(accumulated_stream), count_, work_.noise_key);
        }
        for (std::size_t k = 0; k < count_; ++k) {
            const Run& run = runs_[k];
            clear_accumulated(run.element, run.elements);
            for (std::size_t row = 0; run.is_whole && row < run.rows; ++row)
                clock_.set(run.row + row);
        }
        count_ = elements_ = 0;
    }

private:
    /// Neighbours, which have had the same.
    struct Run {
        std::size_t element, elements;
        std::size_t given;  ///< where their gradients stand
        std::size_t row, rows, had;
        bool is_whole;  ///< or the end of a row
    };

    bool has_row_numbers() const { return operation_ && work_.touched->parts; }
    /// Lets a row's gradient tell the number that there is of it, which becomes another one.
    void tell(std::size_t row, const RowGradients& gradients) {
        const Layout& layout = *work_.layout;
        const PartKernels& kernels = *work_.touched->parts;
        const Coefficients& coefficients = operation_->call->coefficients;
        RowNumber number(work_, row);
        for (std::size_t start = 0; start < length_; start += tile_elements) {
            Block block = block_of(std::min(tile_elements, length_ - start));
            for (const int s : {int{param_stream}, int{accumulated_stream}}) {
                block.data[s] = work_.block.data[s] ? told_[s] : nullptr;
                if (block.data[s])
                    gather(layout.shape, work_.source(s), row * length_ + start, block.count,
                           precision_, told_[s]);
            }
            gradients.read(start, block.count, told_[grad_stream]);
            block.data[grad_stream] = told_[grad_stream];
            block.factors = work_.block.factors;
            number.tell(block, coefficients, kernels);
        }
        number.read(number_);
        number.renew(coefficients, kernels, length_, number_);
    }

    Block block_of(std::size_t elements) {
        Block block{};
        for (int s = 0; s < stream_count; ++s)
            if (work_.block.data[s]) block.data[s] = buffers_[s];
        if (has_row_numbers())
            block.data[work_.layout->parts_stream] = buffers_[work_.layout->parts_stream];
        block.data[grad_stream] = buffers_[grad_stream];
        block.count = elements;
        block.grad_format = format_of(precision_);
        return block;
    }
    bool is_in_place(int s) const { return !(work_.buffered & bit(s)); }
    char* place(int s, const Run& run) const {
        return static_cast<char*>(work_.block.data[s]) + run.element * item_;
    }
    void copy(char* to, const char* from, std::size_t bytes) const {
        if (bytes == sizeof(float))
            std::memcpy(to, from, sizeof(float));
        else
            std::memcpy(to, from, bytes);
    }

    /// Reads the first runs of a stream.
    void read(int s, std::size_t runs) {
        char* to = buffers_[s];
        for (std::size_t k = 0; k < runs; to += runs_[k++].elements * item_) {
            const std::size_t bytes = runs_[k].elements * item_;
            if (is_in_place(s)) {
                copy(to, place(s, runs_[k]), bytes);
                continue;
            }
            gather(work_.layout->shape, work_.source(s), runs_[k].element, runs_[k].elements,
                   precision_, tile_);
            std::memcpy(to, tile_, bytes);
        }
    }
    /// Writes them.
    void write(unsigned written, std::size_t runs, std::uint32_t noise_key) {
        if (is_direct_) {
            for (int s = 0; s < stream_count; ++s) {
                const char* from = buffers_[s];
                if (!(written & bit(s)) || !work_.block.data[s]) continue;
                for (std::size_t k = 0; k < runs; from += runs_[k++].elements * item_)
                    copy(place(s, runs_[k]), from, runs_[k].elements * item_);
            }
            return;
        }
        Noise noise(*work_.layout, noise_key);
        const Shape& shape = work_.layout->shape;
        std::size_t at = 0;
        for (std::size_t k = 0; k < runs; at += runs_[k++].elements) {
            const Run& run = runs_[k];
            const std::uint16_t* const random_bits = noise.at(run.element, run.elements);
            const auto write_to = [&](const Stream& stream, int s) {
                std::memcpy(tile_, buffers_[s] + at * item_, run.elements * item_);
                scatter(shape, stream, run.element, run.elements, precision_, tile_, random_bits);
            };
            for (int s = 0; s < stream_count; ++s)
                if (written & bit(s) && work_.block.data[s]) write_to(work_.stream(s), s);
            if (work_.is_copied(written)) write_to(work_.layout->copy, param_stream);
        }
    }

    void catch_up() {
        if (!clock_.is_behind(runs_[0].row)) return;
        std::memset(buffers_[grad_stream], 0, elements_ * item_);
        std::size_t late = 0, elements = 0;
        for (std::size_t update = runs_[0].had; update < clock_.updates().size(); ++update) {
            for (; late < count_ && runs_[late].had <= update; ++late)
                elements += runs_[late].elements;
            const Missed& one = clock_.updates()[update];
            Block block = block_of(elements);
            block.data[accumulated_stream] = nullptr;
            block.factors = one.factors;
            one.call({&block}, {block, {}});
            if (is_direct_) continue;
            // What rounding makes of them is what the next update sees.
            write(one.written, late, one.noise_key);
            for (int s = 0; s < stream_count; ++s)
                if (one.written & bit(s) && work_.block.data[s]) read(s, late);
        }
        if (is_direct_) write(all_streams & ~bit(grad_stream) & ~bit(accumulated_stream), late, 0);
    }

    bool is_direct_ = is_direct(work_);

    std::size_t count_ = 0, elements_ = 0;
    std::array<Run, tile_elements> runs_;
    alignas(double) char number_[sizeof(double)];  ///< of the row that told last
    alignas(64) char told_[accumulated_stream + 1][tile_elements * sizeof(double)];
    alignas(64) char seen_[tile_elements * sizeof(double)];
    /// One run: what has a coding is read and written a little beyond it.
    alignas(64) char tile_[tile_elements * sizeof(double)];
    alignas(64) char given_[tile_elements * sizeof(double)];
    alignas(64) char buffers_[stream_count][tile_elements * sizeof(double)];
};

/// Updates rows number [first, last), of which row_at(k) is the k-th. `operation`: null where rows
/// get nothing but what they have missed.
template <class RowAt>
void update(const Work& work, const Operation* operation, std::size_t length, const RowClock& clock,
            std::size_t first, std::size_t last, RowAt row_at) {
    constexpr std::size_t line = 64, rows_ahead = 16;
    const bool has_numbers = operation && work.touched->parts;
    const auto run = [&](auto&& updates) {
        RowGradients gradients(work, length, row_at(first));
        for (std::size_t k = first; k < last; ++k) {
            const std::size_t row = row_at(k);
            if (k + rows_ahead < last) {
                clock.fetch(row_at(k + rows_ahead));
                if (has_numbers) RowNumber(work, row_at(k + rows_ahead)).fetch();
            }
            gradients.go_to(row);
            updates.add(row, gradients, k + 1 < last ? row_at(k + 1) : row);
        }
        updates.flush();
    };
    if (first == last) return;
    const bool is_too_long = has_numbers && length > tile_elements;
    if (!is_too_long && is_direct(work) && length * itemsize(format_of(work.precision())) >= line)
        run(RowsInPlace({work, operation, length, clock}));
    else
        run(RowsInBuffers({work, operation, length, clock}));
}

}  // namespace

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

template <class RowAt>
void MissedUpdates::catch_up(const Layout& layout, std::size_t rows, RowAt row_at) noexcept {
    unsigned used = 0;
    for (const Missed& each : missed_) used |= each.used;
    const Work work(layout, param_stream, used & ~bit(accumulated_stream), Stream(), false, 0);
    std::size_t bytes = 0;
    for (int s = 0; s < stream_count; ++s)
        if (work.block.data[s] && s != grad_stream)
            bytes += work.stream(s).bytes(rows * layout.row_length);
    const FlushSubnormals flushing;
    const int threads = threads_for(bytes);
    for_each_piece(threads, piece_count(bytes, threads), [&](Piece piece, bool is_caller) {
        std::optional<FlushSubnormals> its_own;
        if (!is_caller) its_own.emplace();
        update(work, nullptr, layout.row_length, RowClock(this, false),
               rows * piece.index / piece.count, rows * (piece.index + 1) / piece.count, row_at);
    });
}

void MissedUpdates::settle(const Layout& layout, const std::vector<std::uint32_t>& ids) noexcept {
    if (any()) catch_up(layout, ids.size(), [&](std::size_t k) { return std::size_t{ids[k]}; });
}

void MissedUpdates::settle(const Layout& layout) noexcept {
    if (!any()) return;
    catch_up(layout, had_.size(), [](std::size_t row) { return row; });
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
    update(work, &operation, touched.length, RowClock(touched.missed, touched.others_miss), first,
           last, [&](std::size_t k) { return std::size_t{(*touched.ids)[k]}; });
}

}  // namespace instep
