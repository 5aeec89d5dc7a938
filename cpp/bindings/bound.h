// An engine optimizer together with the Python arrays that it updates.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <atomic>
#include <optional>
#include <string>
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
    /// `slots` and `scalars` in the rule's order, slots None where unused; average and accumulator
    /// may be None.
    BoundParameter(py::object param, std::string path, const py::sequence& slots,
                   const py::sequence& scalars, py::object average, py::object accumulator,
                   const RuleKernels& rule);

    /// For the engine; points into this object, wherever it moves.
    Array array();
    /// Adds all of its arrays.
    void add_to(Memory& memory) const;
    /// Raises ValueError where the array was resized, moved or made read-only.
    void check_unchanged() const {
        if (!as_bound_.is_current()) refuse_changes();
    }
    /// A gradient as a stream, or an empty one for None; raises where it can't be read. The stream
    /// holds until the next call.
    Stream gradient(py::handle object, const Memory& memory) {
        if (as_bound_.matches(object, free_)) {
            const View view(object);
            return {view.data(), view.dtype(), nullptr, false};
        }
        return checked_gradient(object, memory);
    }

private:
    [[noreturn]] void refuse_changes() const;
    Stream checked_gradient(py::handle object, const Memory& memory);
    Name name(const char* role) const;

    py::object param_, average_, accumulator_;
    std::vector<py::object> slots_, scalars_;
    std::vector<const char*> slot_names_, scalar_names_;
    std::string path_;
    Order order_;
    Snapshot as_bound_;
    Bounds free_{0, 0};  ///< memory next to ours, where the last gradient was
    std::vector<std::vector<std::ptrdiff_t>> stream_strides_;
    std::vector<std::ptrdiff_t> gradient_strides_;
    double number_ = 0;  ///< the gradient of a 0-d array, given as a number
};

class Bound {
public:
    Bound(const std::string& rule, const Tree& tree, const py::list& slots, const py::list& scalars,
          const py::list& averages, const py::list& accumulators);

    /// One tuple per group: learning rate or schedule, l2, weight_decay, clipnorm, clipvalue,
    /// maximize, the rule's own numbers; then the group of each leaf.
    void set_groups(const py::list& groups, const std::vector<std::size_t>& of_leaves);
    /// `by_call`: within an accumulation window, too, schedules count and averages move.
    void set_options(double loss_scale_factor, std::optional<double> global_clipnorm,
                     bool skip_nonfinite, std::int64_t accumulation_steps, double ema_momentum,
                     std::int64_t ema_overwrite_frequency, bool global_clock, bool by_call);

    /// Pairs of a slot and the parameter that it is a copy of before the first update.
    void set_copies(const py::list& pairs);

    /// For rules that see whole arrays: function(indices of arrays, learning rates of groups) finds
    /// gradients in the arrays' only slots, leaves there the steps to take, and returns pairs of
    /// arrays: state, and what it becomes.
    void set_directions(py::object function);

    void step(py::handle gradients);

    /// (iterations, skipped_steps, window, grad_norm, steps of each leaf, in_window of each leaf).
    py::tuple counters() const;
    void set_counters(std::int64_t iterations, std::int64_t skipped_steps, std::int64_t window,
                      std::optional<double> grad_norm, const std::vector<std::int64_t>& steps,
                      const std::vector<bool>& in_window);
    /// Raises RuntimeError while a step runs.
    void check_idle() const;

    const Optimizer& optimizer() const { return optimizer_; }
    /// What schedules are asked for: the index of the update, or of the call.
    std::int64_t schedule_index() const;

    /// For Python's garbage collector: a schedule may refer to what refers to this.
    int traverse(visitproc visit, void* arg) const;
    void clear();

private:
    void ask_schedules();
    double answer(const py::object& schedule, std::int64_t index) const;
    void gather_gradients(py::handle gradients);
    void step_in_two_parts();
    void copy_parameters();

    Tree tree_;
    std::vector<BoundParameter> parameters_;
    Memory memory_;
    Optimizer optimizer_;
    std::vector<py::object> schedules_;  ///< of each group; null where its rate is a number
    py::list copies_;
    py::object directions_;
    std::vector<py::handle> found_;  ///< gradients of the step under way
    std::vector<Stream> streams_;
    std::size_t elements_ = 0;
    bool schedules_count_calls_ = false;
    int next_rate_ = -1;            ///< which number of the rule is the next learning rate
    std::vector<bool> wants_next_;  ///< whether it is to be asked for, of each group
    std::atomic<bool> busy_{false};
};

/// Raises ValueError where there is none.
const RuleKernels& rule_named(const std::string& name);

/// Steps over more elements than this take longer than handing over Python's lock.
inline constexpr std::size_t elements_worth_releasing = 8192;

/// One update of bare arrays of any layout; raises for what cannot be updated.
void update_arrays(const RuleKernels& rule, const py::object& param, const py::object& grad,
                   const py::tuple& slots, const py::tuple& scalars, std::int64_t step,
                   double learning_rate, const std::array<double, max_hyperparameters>& own);

}  // namespace instep::bindings
