// An engine optimizer together with the Python arrays that it updates.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/memory.h"
#include "bindings/tree.h"
#include "engine/optimizer.h"

namespace instep::bindings {

/// Stands for the learning rate of the next update among a rule's numbers, where it has a
/// hyperparameter `next_learning_rate` and its rate is a schedule.
inline constexpr double ask_schedule = -2;

/// A parameter as it was bound: what must not have changed since, and how its memory is visited.
class BoundParameter {
public:
    using Others = std::vector<std::pair<std::string, py::object>>;

    /// `slots` and `scalars` in the rule's order, slots None where unused; average and accumulator
    /// may be None; `others` are named; `axes` are those of the order to visit it in, None for that
    /// of its memory.
    BoundParameter(py::object param, std::string path, const py::sequence& slots,
                   const py::sequence& scalars, py::object average, py::object accumulator,
                   Others others, const py::object& axes, const RuleKernels& rule);

    py::handle object() const { return param_; }
    const std::vector<int>& axes() const { return order_.axes; }
    /// For the engine; points into this object, wherever it moves.
    Array array();
    /// Adds all of its arrays.
    void add_to(Memory& memory) const;
    /// Raises ValueError where the array was resized, moved or made read-only.
    void check_unchanged() const {
        if (!is_unchanged()) refuse_changes();
    }
    bool is_unchanged() const { return as_bound_.is_current(); }
    /// A gradient as a stream, or an empty one for None; raises where it can't be read. The stream
    /// holds until the next call. `looked_closer`: where it became true, Python code may have run.
    Stream gradient(py::handle object, const Memory& memory, bool& looked_closer) {
        if (order_.c_contiguous && as_bound_.matches(object, free_)) {
            const View view(object);
            return {view.data(), view.dtype(), nullptr, false};
        }
        looked_closer = true;
        return checked_gradient(object, memory);
    }

    /// Raises ValueError where parameter or gradient have changed since `gradient`.
    void check_still(py::handle object, const Stream& stream) const;

private:
    [[noreturn]] void refuse_changes() const;
    Stream checked_gradient(py::handle object, const Memory& memory);
    Name name(const char* role) const;

    py::object param_, average_, accumulator_;
    std::vector<py::object> slots_, scalars_;
    std::vector<const char*> slot_names_, scalar_names_;
    Others others_;
    std::string path_;
    Order order_;
    Snapshot as_bound_;
    Bounds free_{0, 0};  ///< memory next to ours, where the last gradient was
    std::vector<std::vector<std::ptrdiff_t>> stream_strides_;
    std::vector<std::ptrdiff_t> gradient_strides_;
    double number_ = 0;  ///< the gradient of a 0-d array, given as a number
};

/// What hyperparameters come to in a bound optimizer.
struct Configuration {
    std::vector<Group> groups;
    std::vector<std::size_t> of_leaves;  ///< the group of each parameter
    Options options;
    std::vector<py::object> schedules;  ///< of each group; null where its rate is a number
    std::vector<bool> wants_next;       ///< whether the rule of that group needs the rate after it
    bool schedules_count_calls = false;
    py::object directions;
};

/// What an optimizer has counted; in Python a tuple of these, in this order.
struct Counters {
    std::int64_t iterations, skipped_steps, window;
    std::optional<double> grad_norm;
    std::vector<std::int64_t> steps;  ///< of each parameter
    std::vector<bool> in_window;      ///< of each parameter
};

/// What is to be written where once nothing can fail any more: arrays alike.
class Changes {
public:
    /// Pairs of an array to write and one to read. Raises RuntimeError where they are not alike.
    explicit Changes(const py::object& pairs);
    std::size_t size() const { return elements_; }
    void write() const noexcept;
    int traverse(visitproc visit, void* arg) const;

private:
    struct Change {
        py::object to, from;
        Order order;
        std::size_t size;
        Stream target, source;
        std::vector<std::ptrdiff_t> strides[2];
    };
    std::list<Change> changes_;  ///< where streams may point into
    std::size_t elements_ = 0;
};

class Bound {
public:
    /// `others` are, for each parameter, pairs of name and array: state that the engine does not
    /// know, but whose memory is the parameter's as well. `copies` are pairs of an array and the
    /// parameter that it is a copy of before the first update; `counters` those to go on with, or
    /// None; `orders` each parameter's axes in the order to visit them, or None.
    Bound(const std::string& rule, const Tree& tree, const py::list& slots, const py::list& scalars,
          const py::list& averages, const py::list& accumulators, const py::list& others,
          const py::object& copies, const py::object& counters, const py::object& orders);

    /// From (groups, of_leaves, options, directions), of which groups are tuples of learning rate
    /// or schedule, l2, weight_decay, clipnorm, clipvalue, maximize, the rule's own numbers;
    /// options are loss_scale_factor, global_clipnorm, skip_nonfinite, accumulation_steps,
    /// ema_momentum, ema_overwrite_frequency, global_clock, and whether within an accumulation
    /// window, too, schedules count and averages move.
    ///
    /// Rules that see whole arrays have a function directions(indices of arrays, learning rates of
    /// groups), others None: it finds gradients in the arrays' only slots, leaves there the steps
    /// to take, and returns pairs of arrays: state, and what it becomes.
    Configuration configuration(const py::tuple& told) const;
    /// Takes it over, and leaves in it what held before.
    void configure(Configuration& told) noexcept;

    /// Before the first update makes the copies anew: weights may have been loaded meanwhile.
    /// Raises ValueError where a parameter is not what was bound any more.
    void refresh();

    /// Finds the learning rates of the next update; call it before `step`.
    void ask_schedules();
    void step(py::handle gradients);

    std::vector<std::vector<int>> orders() const;

    Counters counters() const;
    /// Raises where the object does not hold counters of as many parameters.
    Counters counters_from(const py::object& told) const;
    void set_counters(const Counters& counters) noexcept;
    std::int64_t iterations() const { return look_at(optimizer_.iterations); }
    std::int64_t skipped_steps() const { return look_at(optimizer_.skipped_steps); }
    std::optional<double> grad_norm() const;
    /// What schedules are asked for: the index of the update, or of the call.
    py::object schedule_index() const;

    /// Raises ValueError where a container or an array is not what was bound any more.
    void check_unchanged() const;
    /// Whether an array shares no memory with parameters and state.
    bool is_apart(const py::object& array) const;

    /// For Python's garbage collector: schedules and the like may refer to what refers to this.
    int traverse(visitproc visit, void* arg) const;
    void clear();

private:
    void gather_gradients(py::handle gradients);
    void step_in_two_parts();

    Tree tree_;
    std::vector<BoundParameter> parameters_;
    Memory memory_;
    Optimizer optimizer_;
    Configuration told_;
    Changes copies_;
    std::vector<py::object> found_;  ///< gradients of the step under way
    std::vector<Stream> streams_;
    std::size_t elements_ = 0;
    int next_rate_ = -1;  ///< which number of the rule is the next learning rate
};

/// The learning rate that a schedule gives for an index. Raises TypeError or ValueError where it
/// gives anything but a finite number of at least 0.
double ask(const py::object& schedule, const py::object& index);

/// Raises ValueError where there is none.
const RuleKernels& rule_named(const std::string& name);

/// One update of bare arrays of any layout; raises for what cannot be updated.
void update_arrays(const RuleKernels& rule, const py::object& param, const py::object& grad,
                   const py::tuple& slots, const py::tuple& scalars, std::int64_t step,
                   double learning_rate, const std::array<double, max_hyperparameters>& own);

}  // namespace instep::bindings
