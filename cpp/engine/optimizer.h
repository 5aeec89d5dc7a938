// An optimizer bound to arrays: their groups, clocks and accumulation window. Knows no Python.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/missed.h"
#include "engine/options.h"
#include "engine/registry.h"
#include "engine/step.h"

namespace instep {

/// What a group of parameter arrays has of its own.
struct Group {
    double learning_rate = 0;  ///< times its factor
    GroupOptions options;
    std::array<double, max_hyperparameters> numbers{};  ///< of the rule, in its order

    /// What an update takes off parameters before the rule, as a share of them.
    double decay() const {
        return options.weight_decay * (options.independent_weight_decay ? 1 : learning_rate);
    }
};

/// What convention holds, as far as the rule itself does not know.
struct Clocks {
    bool global = false;      ///< rules count all updates, not only those of the array
    bool every_call = false;  ///< averages move at every call of an accumulation window
};

/// One parameter array with its state.
struct Array {
    Layout layout;
    std::size_t group = 0;
    std::array<double*, max_scalars> scalars{};  ///< numbers that the rule keeps for the array
};

/// Counters end here, and stay: what is computed from them never overflows.
inline constexpr std::int64_t most_steps = std::int64_t{1} << 62;

/// What an array has been through.
struct Clock {
    std::int64_t steps = 0;  ///< updates of this array
    bool in_window = false;  ///< its accumulator holds gradients
    bool begun = false;      ///< an update had the optional slots that it has now
    bool frozen = false;     ///< it has no gradients, whatever is given
};

/// Counters change while a step runs, and other threads may look at them.
template <class T>
T look_at(const T& counter) {
    return std::atomic_ref<T>(const_cast<T&>(counter)).load(std::memory_order_relaxed);
}
template <class T>
void change(T& counter, T value) {
    std::atomic_ref<T>(counter).store(value, std::memory_order_relaxed);
}

/// What an array keeps beside that has had gradients of some of its rows.
struct RowState {
    MissedUpdates missed;
    /// The rows that an unfinished window has gradients of, ascending; unless it has them of all.
    std::vector<std::uint32_t> in_window;
    bool all_in_window = false;
    bool is_clean = false;  ///< what is accumulated is zero in all rows but those

    // Of the step under way.
    TouchedRows touched;
    std::vector<std::uint32_t> together;   ///< rows of the window and those that are given
    std::optional<Missed> missing;         ///< what rows miss that it does not touch
    std::ptrdiff_t part = -1;              ///< of the step, that is its; negative: none
    bool settles = false, cleans = false;  ///< first

    /// In a window that has gradients of these rows.
    static std::unique_ptr<RowState> of_window(std::vector<std::uint32_t> ids);
};

/// The power of two that gradients in the accumulators of windows of so many calls are multiplied
/// with: no sum of theirs overflows where their mean does not.
double window_share(std::int64_t calls);

/// Arrays of which others have other parts, and what comes into memory a span at a time.
struct Sharing {
    bool is_shared = false;
    /// Where spans end: before an element of an array, by its index.
    struct Border {
        std::size_t array, element;
    };
    std::vector<Border> ends;
};

class Optimizer {
public:
    Optimizer(const Rule& rule, std::vector<Array> arrays);

    std::vector<Array> arrays;
    std::vector<Clock> clocks;  ///< of the arrays
    std::vector<Group> groups;
    Options options;
    Clocks counting;
    Sharing sharing;

    std::int64_t iterations = 0, skipped_steps = 0;
    std::int64_t calls = 0;        ///< that updated or accumulated
    std::int64_t window = 0;       ///< calls so far that await the update
    double grad_norm = -1;         ///< of the last update; negative where it was not wanted
    std::vector<Watched> watched;  ///< of each array, as far as it is watched

    const Rule& rule() const { return rule_; }
    /// Whether the next call updates, or only accumulates.
    bool updates() const {
        return is_flushing_ || window + 1 >= options.gradient_accumulation_steps;
    }
    /// The next step updates with what an unfinished window holds, and no more gradients.
    void set_flushing(bool flushes) {
        is_flushing_ = flushes;
        changed();
    }

    /// The next step must be prepared from scratch: groups, options, counters or arrays are others
    /// than in the last one. Numbers may change without.
    void changed() { repeatable_ = false; }

    /// Prepares a step with one gradient per array, without data where there is none. Can fail; has
    /// changed nothing yet.
    void prepare(const std::vector<Stream>& gradients);
    /// Carries out the step prepared: arrays, state and counters. May run without Python's lock.
    /// Where it pauses, somebody else has something to do, see `Pause`: what is lent to make
    /// updates of stands in the arrays' first slots, and nothing else has changed until then.
    Pause advance() noexcept;
    /// The step under way.
    Step& step() { return step_; }

    /// Lets all rows have the updates that they have missed.
    void settle() noexcept;
    /// The same for these rows of an array.
    void settle(std::size_t array, const std::vector<std::uint32_t>& ids) noexcept {
        if (array < rows_.size() && rows_[array])
            rows_[array]->missed.settle(arrays[array].layout, ids);
    }
    bool is_settled() const;
    /// Whether the numbers of some of that array's rows are of an earlier time.
    bool is_behind(std::size_t array) const;
    /// Rows that an unfinished window has gradients of, if not of all.
    const std::vector<std::uint32_t>* rows_in_window(std::size_t array) const;
    /// Goes on with what each array keeps beside; null where that is nothing.
    void set_row_states(std::vector<std::unique_ptr<RowState>> states) noexcept {
        rows_ = std::move(states);
    }
    /// Whether the array's gradients may be of some rows only, and others stay as they are.
    bool can_be_lazy(std::size_t array) const;

    /// The arrays that have a gradient in this step.
    const std::vector<std::size_t>& stepping() const { return stepping_; }

private:
    void set_spans();
    void prepare_accumulation(const std::vector<Stream>& gradients);
    void prepare_update(const std::vector<Stream>& gradients);
    /// Prepares an update like the last one, if it is one: only gradients and numbers differ.
    bool repeat_update(const std::vector<Stream>& gradients);
    /// Adds a plan to the step: that of an array with a gradient, given or accumulated, or without.
    void add_plan(std::size_t array, bool is_given, bool has_gradient);
    void set_numbers(Plan& plan) const;
    /// The array whose numbers go on in that one: where they belong to all together, those that
    /// have come later have not had them.
    const Array& holder_of_numbers(std::size_t array) const;
    void set_noise(Work& work, std::size_t array) const;
    /// What the array keeps beside for rows; null where it has had no such gradient.
    RowState* rows_of(std::size_t array, const Stream& gradient);
    /// Whether the gradient of an update is of some rows, and what it leaves others to miss.
    const TouchedRows* find_touched(std::size_t array, const Stream& gradient);
    void find_missing(std::size_t array, RowState& rows, const Plan& update);
    /// What becomes of an average while the parameter stays as it is.
    Missed resting(std::size_t array);
    void keep_rows() noexcept;
    void keep_scalars() noexcept;
    void keep_watched() noexcept;

    /// Whether the rule's updates are made by somebody else.
    bool lends() const { return &rule_ == &internal(Internal::lend); }

    const Rule& rule_;
    bool is_flushing_ = false;
    Step step_;
    std::vector<std::size_t> stepping_;
    std::vector<std::size_t> parts_of_;            ///< which array each part of the step is of
    std::vector<std::unique_ptr<RowState>> rows_;  ///< of each array; null where there is none
    bool repeatable_ = false;  ///< the last update was of all arrays, with gradients of their own
};

}  // namespace instep
