// An engine optimizer together with the Python arrays that it updates.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/box.h"
#include "bindings/changes.h"
#include "bindings/limits.h"
#include "bindings/options.h"
#include "bindings/overlap.h"
#include "bindings/parameter.h"
#include "bindings/tree.h"
#include "engine/optimizer.h"

namespace instep::bindings {

/// Stands for the learning rate of the next update among a rule's numbers, where it has a
/// hyperparameter `next_learning_rate` and its rate is a schedule.
inline constexpr double ask_schedule = -2;

/// What decides whether a hyperparameter reaches a group as it is, under its name.
struct Reach {
    py::dict own;                           ///< what the group has in place of the default one's
    py::dict other_options, other_numbers;  ///< what the engine is told in their place
};

/// What hyperparameters come to in a bound optimizer.
struct Configuration {
    std::vector<Group> groups;
    std::vector<Reach> reach;           ///< of each group
    py::object tied;                    ///< set of hyperparameters that something else hangs on
    py::object switches;                ///< of those where something hangs on whether they are 0
    std::vector<std::size_t> group_of;  ///< each parameter
    Options options;
    Clocks counting;
    std::vector<py::object> schedules;  ///< of each group; null where its rate is a number
    std::vector<bool> wants_next;       ///< whether the rule of that group needs the rate after it
    struct Answer {
        double rate = 0, next = 0;
    };
    std::vector<Answer> answers;  ///< of the schedules
    /// Another number that changes: of a group, or of all together (negative).
    struct Asked {
        int group;
        py::object name, schedule, check;
        Limits limits;
    };
    std::vector<Asked> asked;
    py::object update;  ///< for rules on whole arrays
};

/// What an optimizer has counted.
struct Counters {
    std::int64_t iterations, skipped_steps, calls, window;
    std::optional<double> grad_norm;
    std::vector<std::int64_t> steps;             ///< of each parameter
    std::vector<bool> in_window, begun, frozen;  ///< of each parameter
    /// The rows that an unfinished window has gradients of; nothing where those are all.
    std::vector<std::optional<std::vector<std::uint32_t>>> rows_in_window;
    /// The same as the engine keeps it, made by `counters_from`.
    std::vector<std::unique_ptr<RowState>> row_states;
    bool swapped;  ///< averages are in the place of parameters
};

/// Arrays in the place of parameters.
struct Move {
    py::object tree;
    std::vector<py::object> params, copied;  ///< `copied`: those that copies are made of
    Memory memory;
};

class Bound {
public:
    /// From a dict with the rule (`rule`, as for `rule_of`), the parameters (`tree`), for each of
    /// them a dict of its state by name (`state`) and one of the axes of those of its arrays that
    /// are parts of the rule's divisible slot (`parts`) and one of formats and codings (`kept`, as
    /// for BoundParameter), its average and its accumulator (`averages`, `accumulators`, or None),
    /// triples of an array, the index of the parameter that it is a copy of before the first
    /// update, and whether that is the parameter's own (`copies`), the counters to go on with, or
    /// None (`counters`), for each parameter the axes in the order to visit them, or None
    /// (`orders`), and None or a dict of what is shared with others (`sharing`): for each parameter
    /// how many elements of an array are before it and how many that has in all (`wholes`), how
    /// many each of its rows has, or 0 where it has no gradients of rows (`row_lengths`), lists of
    /// (parameter, first element, count) that come into memory together (`spans`), whether others
    /// have the other parts (`is_shared`), and a `partner`. Before a step changes anything, its
    /// `agree` is given all numbers that the step depends on, and may raise. `bring` is asked for a
    /// span, and told the phase, whether gradients are read, and which arrays step: where they are
    /// sums of others' it returns the memory of each, as bytes, where parameters' parts follow each
    /// other at multiples of 8, or None. `add_up` is to add others' numbers to its own. Raises
    /// RuntimeError for counters of one whose averages are in the place of parameters.
    explicit Bound(const py::dict& given);

    /// From a dict of `groups`, each with its `values` and those that it has of its `own`, and what
    /// the engine is told in place of options (`other_options`) and of the rule's numbers
    /// (`other_numbers`) of that name; the index of each parameter's group (`group_of`), the
    /// `options` of all together, which of them can't change alone (`tied`), or not from or to 0
    /// (`switches`), a list of other hyperparameters with `schedules`, each with its `group`, or -1
    /// for all together, `name`, `schedule`, `limits` and a function `check` that says what is
    /// wrong with an answer that is not within them, whether there is one clock for all arrays
    /// (`global_clock`), whether schedules count and averages move at every call of an accumulation
    /// window (`every_call`), and `update`.
    ///
    /// Rules on whole arrays have a function update(indices of arrays, learning rates of groups),
    /// others None: it finds gradients in the arrays' slots `update`, leaves there what to take off
    /// the parameters, and returns pairs of arrays: state, and what it becomes.
    Configuration configuration(const py::dict& told) const;
    /// Takes it over, and leaves in it what held before.
    void configure(Configuration& told) noexcept;
    /// Whether that hyperparameter can become a number, and nothing else changes.
    bool is_free(py::handle name, py::handle before, double number) const;
    /// Makes it that number in all groups that have none of their own.
    void set_number(py::handle name, double number) noexcept;

    /// Before the first update makes the copies anew: weights may have been loaded meanwhile.
    void refresh();
    /// Lets rows have the updates that they have missed.
    void settle();
    /// The same for those that ids, in the structure of the parameters, name.
    void settle(py::handle ids);
    /// The parameters of which rows wait for updates.
    std::vector<std::size_t> behind() const;
    /// Puts averages in the place of parameters, or back. No step is possible meanwhile.
    void swap_averages();
    /// Raises RuntimeError where they are there.
    void check_not_swapped() const;

    /// Finds the learning rates of the next update, and other numbers that change; call it before
    /// `step`.
    void ask_schedules();
    /// `lenient`: what is left out of the structure has no gradient.
    void step(py::handle gradients, bool lenient = false);
    /// The same where the partner brings gradients to be added up, over a divisor: the format of
    /// each, or nothing. For what it brings None for, there are contiguous arrays of one's own. Or
    /// there are Rows of what is here of a parameter, of all ranks already.
    void step_on_sums(const std::vector<std::optional<std::string>>& formats, double divisor,
                      std::vector<std::vector<py::object>> own, std::vector<py::object> rows);
    /// Whether there is an unfinished window.
    bool has_window() const { return look_at(optimizer_.window) > 0; }
    /// Updates with what it holds; between `set_flushing`, and after `ask_schedules`.
    void flush();
    void set_flushing(bool flushes) { optimizer_.set_flushing(flushes); }

    /// What the parameters are in, a Tree.
    py::object tree() const { return tree_; }
    /// Other arrays that may take the place of all parameters, with nothing else changed; nothing
    /// where more is different. Raises ValueError where they share memory.
    std::optional<Move> moved(const py::object& params) const;
    /// Takes them, and leaves in their place those that were bound.
    void move(Move& others) noexcept;

    std::vector<std::vector<int>> orders() const;
    /// A new array of the numbers that a parameter stands for, as kernels compute with them.
    py::object values(std::size_t param) const;

    Counters counters() const;
    /// Raises where the dict does not hold counters of as many parameters.
    Counters counters_from(const py::dict& told) const;
    /// Takes them over.
    void set_counters(Counters&& counters) noexcept;
    std::int64_t iterations() const { return look_at(optimizer_.iterations); }
    std::int64_t skipped_steps() const { return look_at(optimizer_.skipped_steps); }
    std::optional<double> grad_norm() const;
    /// For each parameter a dict of what was watched, by name; None where nothing was seen yet.
    py::object watched() const;
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
    const Tree& walked() const { return Box<Tree>::of(tree_.ptr()); }
    void gather_gradients(py::handle gradients, bool lenient);
    /// Raises ValueError where a parameter can't have gradients of some rows.
    void check_rows(std::size_t param) const;
    /// Makes copies anew of parameters that step, or of all.
    void refresh(bool all);
    void ask_numbers();
    void carry_out();
    void read_sharing(const py::object& told);
    py::bytes numbers();
    void bring();
    void share();
    /// Makes the rounded copies of parameters anew.
    void write_rounded() noexcept;
    /// Lets the rule's function make updates of the gradients that it finds.
    Changes make_updates();

    py::object rule_;  ///< keeps what the engine knows of it
    py::object tree_;
    std::vector<BoundParameter> parameters_;
    Memory memory_;
    Optimizer optimizer_;
    Configuration told_;
    Changes copies_;
    struct Copied {
        std::size_t param;      ///< which one that is a copy of
        bool until_own_update;  ///< or else until any
    };
    std::vector<Copied> copied_;
    py::object partner_;                    ///< null where nothing is shared
    std::vector<std::size_t> row_lengths_;  ///< of parts of arrays; 0: has no gradients of rows
    struct SharedPart {
        std::size_t array, first, count;
    };
    std::vector<std::vector<SharedPart>> spans_;
    std::vector<Summed> summed_;       ///< the gradient of each parameter
    std::vector<py::object> brought_;  ///< memory of what is summed in this span
    std::vector<std::vector<py::object>> own_;
    std::vector<py::object> found_;  ///< gradients of the step under way
    std::vector<Stream> streams_;
    std::size_t elements_ = 0;
    std::vector<std::vector<float>> swapped_averages_;  ///< of parameters with fewer digits
    bool swapped_ = false, any_frozen_ = false;
    int next_rate_ = -1;  ///< which number of the rule is the next learning rate
};

/// How a parameter whose state has what rounding to 16 bits leaves out of it is kept, as for
/// BoundParameter; raises TypeError where `state` has no such array, or one that is for others, and
/// ValueError where such a parameter is not updated in place.
py::dict kept_beside(const py::object& param, bool in_place, const py::dict& state);

/// One update of bare arrays of any layout, with the rule's state and the axes of its parts by
/// name; raises for what cannot be updated. `out` is where to write the updated parameter, or None.
void update_arrays(const Rule& rule, const py::object& param, const py::object& grad,
                   const py::object& out, const py::dict& state, const py::dict& parts,
                   std::int64_t step, const Group& group);

}  // namespace instep::bindings
