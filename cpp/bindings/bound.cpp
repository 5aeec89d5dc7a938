#include "bindings/bound.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <utility>

#include "bindings/formula.h"
#include "bindings/schedule.h"
#include "bindings/unlocked.h"

namespace instep::bindings {
namespace {

/// One of a list, None where there is no list.
py::object item_of(const py::object& list, std::size_t k) {
    return list.is_none() ? py::none() : py::object(list[py::int_(k)]);
}

}  // namespace

Bound::Bound(const py::dict& given)
    : rule_(entry(given, "rule")), tree_(entry(given, "tree")), optimizer_(rule_of(rule_), {}) {
    const Tree& tree = Box<Tree>::checked(tree_);
    py::list copies;
    for (const py::handle each : entry(given, "copies")) {
        const auto [to, from, until_own_update] =
            each.cast<std::tuple<py::object, std::size_t, bool>>();
        copies.append(py::make_tuple(to, tree.leaves.at(from)));
        copied_.push_back({from, until_own_update});
    }
    copies_ = Changes(copies);
    const py::object state = entry(given, "state"), parts = entry(given, "parts");
    const py::object kept = entry(given, "kept"), orders = entry(given, "orders");
    const py::object averages = entry(given, "averages");
    const py::object accumulators = entry(given, "accumulators");
    const py::object rounded = entry(given, "rounded");
    const RuleInfo& rule = optimizer_.rule().info;
    parameters_.reserve(tree.leaves.size());
    for (std::size_t k = 0; k < tree.leaves.size(); ++k) {
        parameters_.emplace_back(tree.leaves[k], tree.paths[k], item_of(state, k),
                                 item_of(parts, k), item_of(kept, k), item_of(averages, k),
                                 item_of(accumulators, k), item_of(rounded, k), item_of(orders, k),
                                 rule);
        parameters_[k].add_to(memory_, tree.leaves[k]);
        optimizer_.arrays.push_back(parameters_[k].array());
        optimizer_.clocks.emplace_back();
        optimizer_.watched.emplace_back();
        elements_ += optimizer_.arrays[k].layout.size;
    }
    memory_.check_disjoint();
    streams_.resize(parameters_.size());
    read_sharing(entry(given, "sharing"));
    for (int k = 0; k < rule.hyperparameter_count; ++k)
        if (std::string(rule.hyperparameters[k]) == "next_learning_rate") next_rate_ = k;
    const py::object counters = entry(given, "counters");
    if (!counters.is_none()) set_counters(counters_from(counters));
    check_not_swapped();  // what this one is made of may be in the other's place
}

void Bound::read_sharing(const py::object& told) {
    if (told.is_none()) return;
    const auto named = told.cast<py::dict>();
    partner_ = entry(named, "partner");
    optimizer_.sharing.is_shared = entry(named, "is_shared").cast<bool>();
    const auto wholes =
        entry(named, "wholes").cast<std::vector<std::pair<std::size_t, std::size_t>>>();
    row_lengths_ = entry(named, "row_lengths").cast<std::vector<std::size_t>>();
    if (wholes.size() != parameters_.size() || row_lengths_.size() != wholes.size())
        throw py::value_error("wholes, row_lengths: expected one of each parameter");
    for (std::size_t k = 0; k < wholes.size(); ++k) {
        Layout& layout = optimizer_.arrays[k].layout;
        std::tie(layout.first_element, layout.whole_size) = wholes[k];
        if (layout.first_element % block_elements != 0 ||
            layout.first_element + layout.size > layout.whole_size)
            throw py::value_error("wholes: expected parts of arrays, in blocks");
        if (!row_lengths_[k]) continue;
        layout.row_length = row_lengths_[k];
        if (layout.size % layout.row_length != 0)
            throw py::value_error("row_lengths: expected parts of whole rows");
    }
    std::size_t array = 0, element = 0;
    for (const py::handle span : entry(named, "spans")) {
        spans_.emplace_back();
        for (const py::handle each : span) {
            const auto [k, first, count] =
                each.cast<std::tuple<std::size_t, std::size_t, std::size_t>>();
            if (k >= wholes.size() || first + count > optimizer_.arrays[k].layout.size)
                throw py::value_error("spans: expected elements of the parameters");
            spans_.back().push_back({k, first, count});
            array = k;
            element = first + count;
        }
        optimizer_.sharing.ends.push_back({array, element});
    }
}

Configuration Bound::configuration(const py::dict& told) const {
    Configuration result;
    const RuleInfo& rule = optimizer_.rule().info;
    for (const py::handle each : entry(told, "groups")) {
        const auto group_told = py::reinterpret_borrow<py::dict>(each);
        const py::dict values = entry(group_told, "values");
        const py::object rate = entry(values, "learning_rate");
        const Reach& reach = result.reach.emplace_back(Reach{entry(group_told, "own"),
                                                             entry(group_told, "other_options"),
                                                             entry(group_told, "other_numbers")});
        Group group;
        const bool is_schedule = PyCallable_Check(rate.ptr()) != 0;
        result.schedules.push_back(is_schedule ? rate : py::object());
        if (!is_schedule) group.learning_rate = rate.cast<double>();
        group.options = options_from<GroupOptions>(values, reach.other_options);
        group.learning_rate *= group.options.learning_rate_factor;
        group.numbers = numbers_from(values, reach.other_numbers, rule);
        result.answers.emplace_back();
        result.wants_next.push_back(
            next_rate_ >= 0 && group.numbers[static_cast<std::size_t>(next_rate_)] == ask_schedule);
        result.groups.push_back(group);
    }
    result.group_of = entry(told, "group_of").cast<std::vector<std::size_t>>();
    if (result.group_of.size() != parameters_.size() ||
        std::any_of(result.group_of.begin(), result.group_of.end(),
                    [&](std::size_t group) { return group >= result.groups.size(); }))
        throw py::value_error("group_of: expected a group for each parameter");
    for (const py::handle each : entry(told, "schedules")) {
        const auto asked = py::reinterpret_borrow<py::dict>(each);
        result.asked.push_back({entry(asked, "group").cast<int>(), entry(asked, "name"),
                                entry(asked, "schedule"), entry(asked, "check"),
                                Limits(entry(asked, "limits"))});
    }
    result.options = options_from<Options>(entry(told, "options"), py::dict());
    result.tied = entry(told, "tied");
    result.switches = entry(told, "switches");
    result.counting.global = entry(told, "global_clock").cast<bool>();
    result.counting.every_call = entry(told, "every_call").cast<bool>();
    result.update = entry(told, "update");
    return result;
}

void Bound::configure(Configuration& told) noexcept {
    std::swap(told_, told);
    std::swap(optimizer_.groups, told_.groups);
    std::swap(optimizer_.options, told_.options);
    std::swap(optimizer_.counting, told_.counting);
    for (std::size_t k = 0; k < told_.group_of.size(); ++k)
        optimizer_.arrays[k].group = told_.group_of[k];
    optimizer_.changed();
    write_rounded();
}

void Bound::write_rounded() noexcept {
    for (const Array& array : optimizer_.arrays)
        if (array.layout.copy.data)
            copy_numbers(array.layout.shape, array.layout.size, array.layout.streams[param_stream],
                         array.layout.copy);
}

bool Bound::is_free(py::handle name, py::handle before, double number) const {
    if (PySet_Contains(told_.tied.ptr(), name.ptr()) || !is_plain_number(before)) return false;
    return !PySet_Contains(told_.switches.ptr(), name.ptr()) ||
           (PyFloat_AsDouble(before.ptr()) == 0) == (number == 0);
}

void Bound::set_number(py::handle name, double number) noexcept {
    const std::string_view text = PyUnicode_AsUTF8(name.ptr());
    for (std::size_t k = 0; k < optimizer_.groups.size(); ++k) {
        const Reach& reach = told_.reach[k];
        if (reach.own.contains(name)) continue;
        Group& group = optimizer_.groups[k];
        if (text == "learning_rate")
            group.learning_rate = number * group.options.learning_rate_factor;
        if (!reach.other_options.contains(name)) set_option(group.options, text, number);
        if (!reach.other_numbers.contains(name))
            set_number_of(optimizer_.rule().info, group.numbers, text, number);
    }
    set_option(optimizer_.options, text, number);
}

int Bound::traverse(visitproc visit, void* arg) const {
    for (const py::object& schedule : told_.schedules) Py_VISIT(schedule.ptr());
    for (const Configuration::Asked& each : told_.asked) {
        Py_VISIT(each.schedule.ptr());
        Py_VISIT(each.check.ptr());
    }
    for (const Reach& reach : told_.reach) Py_VISIT(reach.own.ptr());
    Py_VISIT(told_.update.ptr());
    Py_VISIT(partner_.ptr());
    for (const BoundParameter& parameter : parameters_) Py_VISIT(parameter.object().ptr());
    Py_VISIT(tree_.ptr());
    return copies_.traverse(visit, arg);
}

std::optional<Move> Bound::moved(const py::object& params) const {
    check_not_swapped();
    std::optional<Tree> tree = walked().moved(params);
    if (!tree) return std::nullopt;
    Move others;
    others.params = tree->leaves;
    for (std::size_t k = 0; k < parameters_.size(); ++k) {
        if (!parameters_[k].is_like(others.params[k])) return std::nullopt;
        check_parameter(others.params[k], Name(parameters_[k].path()));
        parameters_[k].add_to(others.memory, others.params[k]);
    }
    others.memory.check_disjoint();
    for (const Copied& each : copied_) others.copied.push_back(others.params[each.param]);
    others.tree = Box<Tree>::make(std::make_unique<Tree>(std::move(*tree)));
    return others;
}

void Bound::move(Move& others) noexcept {
    std::swap(tree_, others.tree);
    std::swap(memory_, others.memory);
    copies_.read_from(others.copied);
    for (std::size_t k = 0; k < parameters_.size(); ++k) {
        parameters_[k].move(others.params[k]);
        optimizer_.arrays[k].layout.move(param_stream, View(parameters_[k].object()).data());
    }
    optimizer_.changed();
    write_rounded();
}

void Bound::clear() {
    Configuration nothing;
    std::swap(told_, nothing);
    const py::object partner = std::move(partner_);
}

py::object Bound::schedule_index() const {
    return py::int_(optimizer_.counting.every_call ? look_at(optimizer_.calls) : iterations());
}

void Bound::ask_numbers() {
    std::vector<double> answers;
    for (const Configuration::Asked& each : told_.asked) {
        // Groups without a schedule of their own share an answer.
        const auto same = std::find_if(
            told_.asked.begin(), told_.asked.end(), [&](const Configuration::Asked& other) {
                return other.schedule.is(each.schedule) && other.name.equal(each.name);
            });
        const auto first = static_cast<std::size_t>(same - told_.asked.begin());
        if (first < answers.size()) {
            answers.push_back(answers[first]);
            continue;
        }
        const py::object given = call(each.schedule, schedule_index());
        const std::optional<double> number = each.limits.number(given);
        answers.push_back(number ? *number : call(each.check, given).cast<double>());
    }
    for (std::size_t k = 0; k < answers.size(); ++k) {
        const Configuration::Asked& each = told_.asked[k];
        const auto text = each.name.cast<std::string>();
        if (each.group < 0) {
            set_option(optimizer_.options, text, answers[k]);
            continue;
        }
        const auto index = static_cast<std::size_t>(each.group);
        const Reach& reach = told_.reach[index];
        Group& group = optimizer_.groups[index];
        if (!reach.other_options.contains(each.name)) set_option(group.options, text, answers[k]);
        if (!reach.other_numbers.contains(each.name))
            set_number_of(optimizer_.rule().info, group.numbers, text, answers[k]);
    }
}

void Bound::ask_schedules() {
    if (!told_.asked.empty() && (optimizer_.updates() || optimizer_.counting.every_call))
        ask_numbers();
    if (!optimizer_.updates()) return;
    for (std::size_t k = 0; k < told_.schedules.size(); ++k) {
        const py::object& schedule = told_.schedules[k];
        if (!schedule) continue;
        Group& group = optimizer_.groups[k];
        // Groups without a schedule of their own share an answer.
        const auto same = std::find_if(told_.schedules.begin(), told_.schedules.end(),
                                       [&](const py::object& each) { return each.is(schedule); });
        const auto asked = static_cast<std::size_t>(same - told_.schedules.begin());
        const bool is_new = asked == k;
        if (is_new) told_.answers[k].rate = ask(schedule, schedule_index());
        group.learning_rate = told_.answers[asked].rate * group.options.learning_rate_factor;
        if (!told_.wants_next[k]) continue;
        if (is_new) told_.answers[k].next = ask(schedule, schedule_index() + py::int_(1));
        group.numbers[static_cast<std::size_t>(next_rate_)] =
            told_.answers[asked].next * group.options.learning_rate_factor;
    }
}

void Bound::check_unchanged() const {
    walked().check_unchanged();
    for (const BoundParameter& parameter : parameters_) parameter.check_unchanged();
}

bool Bound::is_apart(const py::object& array) const {
    if (!is_array(array)) throw py::type_error("is_apart: expected a NumPy array");
    try {
        static const std::string name = "array";
        memory_.check_apart(array, View(array).bounds(), Name(name));
    } catch (const py::value_error&) {
        return false;
    }
    return true;
}

void Bound::gather_gradients(py::handle gradients, bool lenient) {
    check_not_swapped();
    walked().check_unchanged();
    walked().match(gradients, lenient, found_);
    bool looked_closer = false;
    const std::size_t count = parameters_.size();
    for (std::size_t k = 0; any_frozen_ && k < count; ++k)
        if (optimizer_.clocks[k].frozen) found_[k] = py::none();
    for (std::size_t k = 0; k < count; ++k) {
        // Many small arrays are more objects than fit the cache, and each leads to the next.
        if (k + 12 < count) parameters_[k + 12].fetch();
        if (k + 8 < count) {
            parameters_[k + 8].fetch_array();
            fetch_object(found_[k + 8]);
        }
        if (k + 4 < count) {
            parameters_[k + 4].fetch_axes_of_array();
            fetch_axes(found_[k + 4]);
        }
        parameters_[k].check_unchanged();
        parameters_[k].read_gradient(found_[k], memory_, streams_[k], looked_closer);
        if (!streams_[k].rows) continue;
        if (partner_)
            throw py::value_error("gradient for " + parameters_[k].path() +
                                  ": expected an array, as not all of its parameter is in memory; "
                                  "got Rows");
        check_rows(k);
    }
    if (!looked_closer) return;
    for (std::size_t k = 0; k < parameters_.size(); ++k)
        parameters_[k].check_still(found_[k], streams_[k]);
}

void Bound::check_rows(std::size_t param) const {
    const Array& array = optimizer_.arrays[param];
    const auto refuse = [&](const std::string& expected) {
        throw py::value_error("gradient for " + parameters_[param].path() + ": expected " +
                              expected);
    };
    if (!optimizer_.can_be_lazy(param)) {
        if (optimizer_.groups[array.group].options.sparse == exact) return;
        refuse(
            "an array, or sparse=\"exact\": the update of each element depends on all others, "
            "those of rows that are not named, too; got Rows");
    }
    if (array.layout.has_blocks && array.layout.row_length % 256 != 0)
        refuse(
            "no Rows with state in float8, unless a row has a multiple of 256 elements, as its "
            "blocks have; got rows of " +
            std::to_string(array.layout.row_length));
    if (optimizer_.options.watch & (watch_update_norm | watch_param_norm))
        refuse(
            "an array while update_norm or param_norm is watched, which are those of whole "
            "arrays; got Rows");
}

void Bound::settle() {
    if (optimizer_.is_settled()) return;
    for (const BoundParameter& parameter : parameters_)
        if (!parameter.is_unchanged()) return;  // the next step tells
    work(elements_, [&] { optimizer_.settle(); });
}

std::vector<std::size_t> Bound::behind() const {
    std::vector<std::size_t> found;
    for (std::size_t k = 0; k < parameters_.size(); ++k)
        if (optimizer_.is_behind(k)) found.push_back(k);
    return found;
}

void Bound::settle(py::handle ids) {
    check_not_swapped();
    check_unchanged();
    walked().match(ids, true, found_, "id");
    const std::vector<py::object> given = std::move(found_);
    std::size_t elements = 0;
    std::vector<const Rows*> rows(parameters_.size());
    for (std::size_t k = 0; k < given.size(); ++k) {
        if (given[k].is_none()) continue;
        rows[k] = &parameters_[k].named(given[k], row_lengths_.empty() ? 0 : row_lengths_[k]);
        elements += rows[k]->ids().size() * rows[k]->length;
    }
    work(elements, [&] {
        for (std::size_t k = 0; k < rows.size(); ++k)
            if (rows[k]) optimizer_.settle(k, rows[k]->ids());
    });
}

void Bound::step(py::handle gradients, bool lenient) {
    const struct Found {
        std::vector<py::object>& gradients;
        ~Found() { gradients.clear(); }
    } found{found_};
    gather_gradients(gradients, lenient);
    carry_out();
}

void Bound::flush() {
    check_not_swapped();
    check_unchanged();
    std::fill(streams_.begin(), streams_.end(), Stream());
    carry_out();
}

void Bound::carry_out() {
    if (!copied_.empty()) refresh(false);
    optimizer_.prepare(streams_);
    if (partner_) call(partner_.attr("agree"), numbers());
    Changes changes;
    const auto advance = [&] {
        const Pause pause = optimizer_.advance();
        if (pause == Pause::none) changes.write();
        return pause;
    };
    for (;;) {
        switch (work(elements_, advance)) {
            case Pause::none:
                return;
            case Pause::elements:
                bring();
                break;
            case Pause::sums:
                share();
                break;
            case Pause::lent:
                changes = make_updates();
                break;
        }
    }
}

/// All numbers that this step depends on, but for those of arrays.
py::bytes Bound::numbers() {
    std::vector<double> all{static_cast<double>(iterations()),
                            static_cast<double>(look_at(optimizer_.window)),
                            static_cast<double>(look_at(optimizer_.calls))};
    const auto add = [&](const char*, const auto& option) {
        all.push_back(static_cast<double>(option));
    };
    optimizer_.options.for_each(add);
    for (Group& group : optimizer_.groups) {
        all.push_back(group.learning_rate);
        group.options.for_each(add);
        all.insert(all.end(), group.numbers.begin(), group.numbers.end());
    }
    return py::bytes(reinterpret_cast<const char*>(all.data()), all.size() * sizeof(double));
}

void Bound::bring() {
    Step& step = optimizer_.step();
    const std::size_t span = step.span();
    std::vector<std::size_t> arrays;
    const std::vector<SharedPart>& parts = spans_.at(span);
    for (const Work& work : step.works) {
        const auto its = std::lower_bound(parts.begin(), parts.end(), work.layout,
                                          [&](const SharedPart& part, const Layout* of) {
                                              return &optimizer_.arrays[part.array].layout < of;
                                          });
        if (its != parts.end() && &optimizer_.arrays[its->array].layout == work.layout)
            arrays.push_back(its->array);
    }
    const py::object memory =
        call(partner_.attr("bring"), name_of(step.phase()), step.reads_gradients(), span, arrays);
    if (memory.is_none()) return;
    brought_ = memory.cast<std::vector<py::object>>();
    for (const SharedPart& part : parts) summed_[part.array].sources.clear();
    std::size_t own = 0;
    for (const py::object& source : brought_) {
        const std::vector<py::object>* const own_arrays =
            source.is_none() ? &own_.at(own++) : nullptr;
        std::size_t offset = 0;
        for (const SharedPart& part : parts) {
            const Stream& gradient = streams_[part.array];
            if (!gradient.summed) continue;
            const std::size_t item = itemsize(gradient.format);
            const std::size_t bytes = part.count * item;
            const View view(own_arrays ? (*own_arrays)[part.array] : source);
            if (own_arrays ? view.size() < part.first + part.count : view.size() < offset + bytes)
                throw py::value_error("bring: expected more elements");
            const char* const at =
                own_arrays ? view.data() : view.data() + offset - part.first * item;
            summed_[part.array].sources.push_back(at);
            offset += (bytes + 7) / 8 * 8;
        }
    }
}

void Bound::share() {
    const Step::Numbers numbers = optimizer_.step().shared();
    const py::array_t<double> array(static_cast<py::ssize_t>(numbers.count), numbers.first,
                                    py::none());  // a view of those numbers
    call(partner_.attr("add_up"), array);
}

void Bound::step_on_sums(const std::vector<std::optional<std::string>>& named, double divisor,
                         std::vector<std::vector<py::object>> own, std::vector<py::object> rows) {
    check_not_swapped();
    check_unchanged();
    if (!partner_ || named.size() != parameters_.size() || rows.size() != named.size())
        throw py::value_error("step: expected the format of each parameter's gradient, or Rows");
    for (const std::vector<py::object>& each : own)
        for (std::size_t k = 0; k < named.size(); ++k) {
            if (!named[k]) continue;
            if (!is_array(each.at(k))) throw py::value_error("step: expected arrays of one's own");
            memory_.check_apart(each[k], View(each[k]).bounds(),
                                Name("gradient", " for ", parameters_[k].path()));
        }
    summed_.assign(parameters_.size(), {{}, divisor});
    for (std::size_t k = 0; k < parameters_.size(); ++k) {
        streams_[k] = Stream();
        if (optimizer_.clocks[k].frozen) continue;
        if (!rows[k].is_none()) {
            streams_[k] =
                parameters_[k].read_rows_of_part(rows[k], row_lengths_[k], divisor, memory_);
            check_rows(k);
        }
        if (!named[k]) continue;
        streams_[k].data = reinterpret_cast<char*>(&summed_[k]);
        streams_[k].format = kept_as(*named[k]).format;
        streams_[k].summed = &summed_[k];
    }
    own_ = std::move(own);
    found_ = std::move(rows);
    const struct Brought {
        Bound& bound;
        ~Brought() {
            bound.found_.clear();
            bound.own_.clear();
            bound.brought_.clear();
        }
    } brought{*this};
    carry_out();
}

Changes Bound::make_updates() {
    std::vector<double> rates;
    for (const Group& group : optimizer_.groups) rates.push_back(group.learning_rate);
    if (!told_.update) throw std::runtime_error("step: this optimizer is being given up");
    Changes changes(call(told_.update, optimizer_.stepping(), rates));
    check_unchanged();  // other threads, and handlers of signals, may have run
    return changes;
}

void Bound::check_not_swapped() const {
    if (swapped_)
        throw std::runtime_error(
            "the averages are in the place of the parameters; call swap_averages() again first");
}

void Bound::swap_averages() {
    check_unchanged();
    settle();
    refresh();
    // Where parameters don't hold all of an average's digits, it comes back from a copy.
    if (!swapped_) swapped_averages_.clear();
    std::size_t copy = 0;
    for (const Array& array : optimizer_.arrays)
        if (!swapped_ && !array.layout.is_exact())
            swapped_averages_.emplace_back(array.layout.size);
    work(2 * elements_, [&] {
        for (const Array& array : optimizer_.arrays) {
            const Stream& average = array.layout.streams[average_stream];
            const bool is_exact = array.layout.is_exact();
            Stream kept;
            if (!is_exact) kept.data = reinterpret_cast<char*>(swapped_averages_[copy++].data());
            if (!is_exact && !swapped_)
                copy_numbers(array.layout.shape, array.layout.size, average, kept);
            exchange(array.layout, param_stream, average_stream);
            if (!is_exact && swapped_)
                copy_numbers(array.layout.shape, array.layout.size, kept, average);
        }
    });
    if (swapped_) swapped_averages_.clear();
    swapped_ = !swapped_;
    write_rounded();
}

void Bound::refresh() {
    if (swapped_) return;
    for (const BoundParameter& parameter : parameters_)
        if (!parameter.is_unchanged()) return;  // the next step tells
    settle();
    refresh(true);
}

void Bound::refresh(bool all) {
    const auto is_due = [&](const Copied& copy) {
        if (!copy.until_own_update) return iterations() == 0;
        const Clock& clock = optimizer_.clocks[copy.param];
        return clock.steps == 0 && (all || streams_[copy.param].data || clock.in_window);
    };
    if (std::none_of(copied_.begin(), copied_.end(), is_due)) return;
    work(copies_.size(),
         [&] { copies_.write_where([&](std::size_t copy) { return is_due(copied_[copy]); }); });
}

std::vector<std::vector<int>> Bound::orders() const {
    std::vector<std::vector<int>> result;
    for (const BoundParameter& parameter : parameters_) result.push_back(parameter.axes());
    return result;
}

py::object Bound::values(std::size_t param) const {
    const BoundParameter& parameter = parameters_.at(param);
    const Layout& layout = optimizer_.arrays[param].layout;
    const View view(parameter.object());
    const Order order(view, parameter.axes());
    std::vector<py::ssize_t> shape;
    for (int axis = 0; axis < view.ndim(); ++axis) shape.push_back(view.extent(axis));
    const char* const dtype = formats[static_cast<int>(format_of(layout.precision))].name;
    py::array result(py::dtype(dtype), shape);
    std::vector<std::ptrdiff_t> strides;
    const Stream to = order.stream(View(result), strides);
    work(layout.size,
         [&] { copy_numbers(layout.shape, layout.size, layout.streams[param_stream], to); });
    return result;
}

Counters Bound::counters() const {
    Counters result{iterations(),
                    skipped_steps(),
                    look_at(optimizer_.calls),
                    look_at(optimizer_.window),
                    grad_norm(),
                    {},
                    {},
                    {},
                    {},
                    {},
                    {},
                    swapped_};
    for (std::size_t k = 0; k < parameters_.size(); ++k) {
        const std::vector<std::uint32_t>* const ids = optimizer_.rows_in_window(k);
        result.rows_in_window.push_back(ids ? std::optional(*ids) : std::nullopt);
    }
    for (const Clock& clock : optimizer_.clocks) {
        result.steps.push_back(look_at(clock.steps));
        result.in_window.push_back(look_at(clock.in_window));
        result.begun.push_back(look_at(clock.begun));
        result.frozen.push_back(look_at(clock.frozen));
    }
    return result;
}

Counters Bound::counters_from(const py::dict& told) const {
    Counters result{};
    result.iterations = entry(told, "iterations").cast<std::int64_t>();
    result.skipped_steps = entry(told, "skipped_steps").cast<std::int64_t>();
    result.calls = entry(told, "calls").cast<std::int64_t>();
    result.window = entry(told, "window").cast<std::int64_t>();
    result.grad_norm = entry(told, "grad_norm").cast<std::optional<double>>();
    result.steps = entry(told, "steps").cast<std::vector<std::int64_t>>();
    result.in_window = entry(told, "in_window").cast<std::vector<bool>>();
    result.begun = entry(told, "begun").cast<std::vector<bool>>();
    result.frozen = entry(told, "frozen").cast<std::vector<bool>>();
    result.rows_in_window = entry(told, "rows_in_window")
                                .cast<std::vector<std::optional<std::vector<std::uint32_t>>>>();
    result.swapped = entry(told, "swapped").cast<bool>();
    const auto is_other = [&](const auto& of_each) { return of_each.size() != parameters_.size(); };
    if (is_other(result.steps) || is_other(result.in_window) || is_other(result.begun) ||
        is_other(result.frozen) || is_other(result.rows_in_window))
        throw py::value_error("counters: expected those of " + std::to_string(parameters_.size()) +
                              " parameters");
    for (std::size_t k = 0; k < parameters_.size(); ++k) {
        const auto& ids = result.rows_in_window[k];
        const Layout& layout = optimizer_.arrays[k].layout;
        if (ids && !ids->empty() && ids->back() >= layout.rows() && layout.row_length)
            throw py::value_error("counters: expected ids of rows");
        result.row_states.push_back(ids && layout.row_length ? RowState::of_window(*ids) : nullptr);
    }
    return result;
}

void Bound::set_counters(Counters&& counters) noexcept {
    optimizer_.set_row_states(std::move(counters.row_states));
    optimizer_.iterations = counters.iterations;
    optimizer_.skipped_steps = counters.skipped_steps;
    optimizer_.calls = counters.calls;
    optimizer_.window = counters.window;
    optimizer_.grad_norm = counters.grad_norm.value_or(-1);
    swapped_ = counters.swapped;
    any_frozen_ =
        std::find(counters.frozen.begin(), counters.frozen.end(), true) != counters.frozen.end();
    for (std::size_t k = 0; k < optimizer_.clocks.size(); ++k)
        optimizer_.clocks[k] = {counters.steps[k], counters.in_window[k], counters.begun[k],
                                counters.frozen[k]};
    optimizer_.changed();
}

std::optional<double> Bound::grad_norm() const {
    const double norm = look_at(optimizer_.grad_norm);
    return norm < 0 ? std::nullopt : std::optional(norm);
}

py::object Bound::watched() const {
    py::list result;
    const auto add = [](py::dict& named, const char* name, const double& number) {
        const double seen = look_at(number);
        named[name] = seen < 0 ? py::object(py::none()) : py::float_(seen);
    };
    for (const Watched& seen : optimizer_.watched) {
        py::dict named;
        add(named, "grad_norm", seen.grad_norm);
        add(named, "update_norm", seen.update_norm);
        add(named, "param_norm", seen.param_norm);
        const double nonfinite = look_at(seen.nonfinite);
        named["nonfinite"] =
            nonfinite < 0 ? py::object(py::none()) : py::int_(static_cast<std::int64_t>(nonfinite));
        result.append(named);
    }
    return result;
}

py::dict kept_beside(const py::object& param, bool in_place, const py::dict& state) {
    const Format format = View(param).format();
    const bool is_short = format != format_of(precision_of(format));
    const Coding wanted = format == Format::float16 ? Coding::master : Coding::remainder;
    for (const Coding coding : {Coding::remainder, Coding::master}) {
        const char* const name = info_of(coding).name;
        const bool is_wanted = is_short && coding == wanted;
        if (state.contains(name) == is_wanted) continue;
        if (is_wanted)
            throw py::type_error(
                "param: expected dtype float32 or float64, got " + description(param) +
                "; with 16 bits pass what rounding leaves out, too: " +
                (coding == Coding::master
                     ? "master=param.astype(np.float32) before the first update"
                     : "remainder=np.zeros(param.shape, np.uint16) before the first update"));
        throw py::type_error(std::string(name) + ": expected none, as param is a " +
                             description(param));
    }
    if (is_short && !in_place)
        throw py::value_error(
            "out: expected none with 16 bits, as what rounding leaves out changes in place");
    py::dict kept;
    if (is_short) kept["parameter"] = info_of(wanted).name;
    return kept;
}

void update_arrays(const Rule& rule, const py::object& param, const py::object& grad,
                   const py::object& out, const py::dict& state, const py::dict& parts,
                   std::int64_t step, const Group& group) {
    if (grad.is_none()) throw py::type_error("grad: expected a NumPy array, got None");
    static const std::string param_name = "param", out_name = "out", no_path;
    const bool in_place = out.is_none() || out.is(param);
    check_parameter(param, Name(param_name), in_place);
    const py::dict kept = kept_beside(param, in_place, state);
    std::optional<Snapshot> source;
    py::object axes = py::none();
    if (!in_place) {
        check_state(out, View(param), {View(param).format()}, Name(out_name));
        source.emplace(View(param));
        axes = py::cast(Order(View(param)).axes);  // sums are those of the update in place
    }
    BoundParameter parameter(in_place ? param : out, "param", state, parts, kept, py::none(),
                             py::none(), py::none(), axes, rule.info);
    Memory memory;
    parameter.add_to(memory, param);
    if (!in_place) memory.add(out, Name("out", "", no_path));
    memory.check_disjoint();
    bool looked_closer = false;
    std::vector<Stream> gradients(1);
    py::object seen = grad;
    parameter.read_gradient(seen, memory, gradients[0], looked_closer);
    parameter.check_still(seen, gradients[0]);
    if (gradients[0].rows && source)
        throw py::value_error("out: expected none with rows, of which others stay as they are");
    if (source && !source->is_current())
        throw py::value_error("param: expected an array that stays as it is during the step");
    Array array = parameter.array();
    std::vector<std::ptrdiff_t> strides;
    if (source) array.layout.read_param_from(Order(View(param)).stream(View(param), strides));
    Optimizer optimizer(rule, {array});
    optimizer.clocks[0].steps = step - 1;
    optimizer.clocks[0].begun = step > 1;
    optimizer.groups.push_back(group);
    if (gradients[0].rows && !optimizer.can_be_lazy(0))
        throw py::value_error(
            "grad: expected an array, as the update of each element depends on "
            "all; got Rows");
    optimizer.prepare(gradients);
    work(optimizer.arrays[0].layout.size, [&] { optimizer.advance(); });
}

}  // namespace instep::bindings
