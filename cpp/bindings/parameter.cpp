#include "bindings/parameter.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

#include "bindings/foreign.h"

namespace instep::bindings {

namespace {

/// Arrays of state by name, and how many of them were asked for.
class ByName {
public:
    explicit ByName(const py::dict& arrays) : arrays_(arrays) {}

    /// None where there is none.
    py::object operator[](const char* name) {
        PyObject* const found = PyDict_GetItemWithError(arrays_.ptr(), py::str(name).ptr());
        if (!found && PyErr_Occurred()) throw py::error_already_set();
        if (!found) return py::none();
        ++found_;
        return py::reinterpret_borrow<py::object>(found);
    }
    bool all_found() const { return found_ == arrays_.size(); }

private:
    const py::dict& arrays_;
    std::size_t found_ = 0;
};

/// What a coding keeps beside its array.
bool has_companion(const Kept& kept) {
    return kept.coding != Coding::none && info_of(kept.coding).companion_bytes > 0;
}

}  // namespace

BoundParameter::BoundParameter(py::object param, std::string path, const py::dict& state,
                               const py::dict& parts, const py::dict& kept, py::object average,
                               py::object accumulator, py::object copy, const py::object& axes,
                               const RuleInfo& rule)
    : as_bound_((check_parameter(param, Name(path)), View(param))),
      param_(std::move(param)),
      average_(std::move(average)),
      accumulator_(std::move(accumulator)),
      copy_(std::move(copy)),
      divisible_slot_(rule.divisible_slot),
      kept_param_{View(param_).format()},
      path_(std::move(path)),
      order_(axes.is_none() ? Order(View(param_))
                            : Order(View(param_), axes.cast<std::vector<int>>())) {
    is_c_contiguous_ = order_.c_contiguous;
    const View view(param_);
    const Kept computed{format_of(precision_of(view.format()))};
    if (!axes.is_none()) is_in_its_order_ = order_.axes == Order(view).axes;
    ByName arrays(state);
    const auto add_companion = [&](const Kept& its_kept, std::string its_name, Companion& to) {
        if (!has_companion(its_kept)) return;
        to.name = std::move(its_name);
        to.array = arrays[to.name.c_str()];
        check_companion(to.array, view, its_kept.coding, name(to.name.c_str()));
    };
    if (kept.contains("parameter")) {
        kept_param_.coding = kept_as(kept["parameter"].cast<std::string>()).coding;
        add_companion(kept_param_, codings[static_cast<int>(kept_param_.coding)].name,
                      beside_param_);
    }
    for (const auto& [key, its_axes] : parts) {
        SlotPart slot_part{key.cast<std::string>(), {}, its_axes.cast<std::vector<int>>()};
        slot_part.array = arrays[slot_part.name.c_str()];
        check_part(slot_part.array, view, slot_part.axes, computed, name(slot_part.name.c_str()));
        slot_parts_.push_back(std::move(slot_part));
    }
    for (int s = 0; s < rule.slot_count; ++s) {
        const SlotInfo& slot = rule.slots[s];
        slot_names_.push_back(slot.name);
        kept_.push_back(kept.contains(slot.name) ? kept_as(kept[slot.name].cast<std::string>())
                                                 : computed);
        beside_.emplace_back();
        const bool is_whole = s != divisible_slot_ || slot_parts_.empty();
        slots_.push_back(is_whole ? arrays[slot.name] : py::none());
        if (!is_whole) continue;
        if (!slots_.back().is_none()) {
            check_state(slots_.back(), view, kept_.back(), name(slot.name));
            add_companion(kept_.back(), std::string(slot.name) + "_scale", beside_.back());
        } else if (!slot.optional) {
            throw py::type_error(name(slot.name) + ": expected an array, got None");
        }
    }
    for (int s = 0; s < rule.scalar_count; ++s) {
        scalar_names_.push_back(rule.scalars[s]);
        scalars_.push_back(arrays[rule.scalars[s]]);
        check_scalar(scalars_.back(), name(rule.scalars[s]));
    }
    if (!average_.is_none()) check_state(average_, view, computed, name("average"));
    if (!accumulator_.is_none()) check_state(accumulator_, view, computed, name("accumulator"));
    if (!copy_.is_none()) {
        check_array(copy_, name("copy"));
        check_state(copy_, view, kept_copy(), name("copy"));
    }
    if (arrays.all_found()) return;
    const auto is_known = [&](const std::string& its_name) {
        const auto equals = [&](const auto& other) { return its_name == other; };
        const auto is_its = [&](const auto& each) { return its_name == each.name; };
        return std::any_of(slot_names_.begin(), slot_names_.end(), equals) ||
               std::any_of(scalar_names_.begin(), scalar_names_.end(), equals) ||
               std::any_of(slot_parts_.begin(), slot_parts_.end(), is_its) ||
               std::any_of(beside_.begin(), beside_.end(), is_its) || is_its(beside_param_);
    };
    for (const auto& [key, array] : state) {
        const auto its_name = key.cast<std::string>();
        if (is_known(its_name)) continue;
        check_statistics(array, view, computed, name(its_name.c_str()));
        others_.emplace_back(its_name, py::reinterpret_borrow<py::object>(array));
    }
}

Kept BoundParameter::kept_copy() const {
    const View view(copy_);
    return {view.stored() == Format::float16 ? Format::float16 : Format::bfloat16};
}

Name BoundParameter::name(const char* role) const {
    return Name(role, " of ", path_);
}

Array BoundParameter::array() {
    stream_strides_.clear();
    stream_strides_.reserve(2 * stream_count + slot_parts_.size());
    Array array;
    Layout& layout = array.layout;
    const auto stream_of = [&](const py::object& object) {
        return order_.stream(View(object), stream_strides_.emplace_back());
    };
    const auto add = [&](int index, const py::object& object, Coding coding = Coding::none,
                         const Companion& beside = {}) {
        if (object.is_none()) return;
        Stream stream = stream_of(object);
        stream.coding = coding;
        if (beside.array && info_of(coding).elements == 1) {
            const Stream companion = stream_of(beside.array);
            stream.companion = companion.data;
            stream.companion_strides = companion.strides;
        } else if (beside.array) {
            stream.companion = View(beside.array).data();
        }
        layout.set(index, stream);
    };
    layout.shape = order_.shape;
    layout.size = layout.whole_size = layout.block.count = View(param_).size();
    layout.precision = precision_of(View(param_).format());
    layout.steps = order_.steps(View(param_));
    const View view(param_);
    if (view.ndim() > 0 && view.extent(0) == 0)
        layout.row_length = 1;
    else if (view.ndim() > 0 &&
             (view.extent(0) == 1 || (!order_.axes.empty() && order_.axes[0] == 0)))
        layout.row_length = layout.size / static_cast<std::size_t>(view.extent(0));
    add(param_stream, param_, kept_param_.coding, beside_param_);
    add(average_stream, average_);
    add(accumulated_stream, accumulator_);
    for (std::size_t s = 0; s < slots_.size(); ++s)
        add(first_slot + static_cast<int>(s), slots_[s], kept_[s].coding, beside_[s]);
    if (!slot_parts_.empty()) {
        std::vector<Part> parts;
        for (const SlotPart& slot_part : slot_parts_) parts.push_back(part(slot_part));
        layout.set_parts(divisible_slot_, std::move(parts));
    }
    if (!copy_.is_none()) {
        layout.copy = stream_of(copy_);
        layout.copy.format = kept_copy().format;
    }
    layout.find_coded();
    for (std::size_t s = 0; s < scalars_.size(); ++s)
        array.scalars[s] = reinterpret_cast<double*>(View(scalars_[s]).data());
    return array;
}

Part BoundParameter::part(const SlotPart& slot_part) {
    const View view(slot_part.array);
    Part part;
    std::vector<std::ptrdiff_t>& strides = stream_strides_.emplace_back();
    part.stream = {view.data(), view.format()};
    part.size = view.size();
    auto expected = static_cast<std::ptrdiff_t>(itemsize(view.format())), step = std::ptrdiff_t{1};
    bool contiguous = true;
    for (std::size_t k = order_.axes.size(); k-- > 0;) {
        const auto found = std::find(slot_part.axes.begin(), slot_part.axes.end(), order_.axes[k]);
        part.steps.insert(part.steps.begin(), found == slot_part.axes.end() ? 0 : step);
        if (found == slot_part.axes.end()) continue;
        const std::ptrdiff_t extent = order_.shape.extents[k];
        const std::ptrdiff_t stride = view.stride(static_cast<int>(found - slot_part.axes.begin()));
        part.shape.extents.insert(part.shape.extents.begin(), extent);
        strides.insert(strides.begin(), stride);
        contiguous &= stride == expected;
        expected *= extent;
        step *= extent;
    }
    if (!contiguous) part.stream.strides = strides.data();
    return part;
}

void BoundParameter::move(py::object& param) noexcept {
    std::swap(param_, param);
    as_bound_.move(View(param_));
    free_ = {0, 0};
}

void BoundParameter::add_to(Memory& memory, py::handle param) const {
    memory.add(param, Name(path_));
    for (std::size_t s = 0; s < slots_.size(); ++s)
        if (!slots_[s].is_none()) memory.add(slots_[s], name(slot_names_[s]));
    const auto add_companion = [&](const Companion& beside) {
        if (beside.array) memory.add(beside.array, name(beside.name.c_str()));
    };
    add_companion(beside_param_);
    for (const Companion& beside : beside_) add_companion(beside);
    for (const SlotPart& slot_part : slot_parts_)
        memory.add(slot_part.array, name(slot_part.name.c_str()));
    for (std::size_t s = 0; s < scalars_.size(); ++s)
        memory.add(scalars_[s], name(scalar_names_[s]));
    if (!average_.is_none()) memory.add(average_, name("average"));
    if (!accumulator_.is_none()) memory.add(accumulator_, name("accumulator"));
    if (!copy_.is_none()) memory.add(copy_, name("copy"));
    for (const auto& [its_name, other] : others_) memory.add(other, name(its_name.c_str()));
}

void BoundParameter::refuse_changes() const {
    if (!View(param_).has_flag(py::detail::npy_api::NPY_ARRAY_WRITEABLE_))
        throw py::value_error(path_ +
                              ": expected an array to update in place, got one that was "
                              "made read-only since it was bound");
    throw py::value_error(path_ +
                          ": expected the array as it was bound, got one that was "
                          "resized, reshaped or moved since; bind again with build");
}

Stream BoundParameter::checked_gradient(py::object& object, const Memory& memory) {
    if (object.is_none()) return {};
    if (View(param_).ndim() == 0 && is_number(object)) {
        number_ = py::cast<double>(object);
        return {reinterpret_cast<char*>(&number_), Format::float64};
    }
    const Name name("gradient", " for ", path_);
    if (is_rows(object)) return rows_gradient(object, memory, Table(View(param_), name), name);
    if (!is_array(object) && is_foreign(object)) object = foreign_gradient(object, name);
    check_gradient(object, View(param_), name);
    const View view(object);
    const Bounds bounds = view.bounds();
    if (bounds.low < free_.low || bounds.high > free_.high)
        free_ = memory.check_apart(object, bounds, name);
    return order_.stream(view, gradient_strides_);
}

Stream BoundParameter::read_rows_of_part(py::object& rows, std::size_t length, double divisor,
                                         const Memory& memory) {
    const Name name("gradient", " for ", path_);
    const Stream stream = rows_gradient(rows, memory, table_of_part(length), name);
    rows_.divisor = divisor;
    return stream;
}

const Rows& BoundParameter::named(py::handle ids, std::size_t length_in_part) {
    const Name name("ids", " for ", path_);
    read_ids(ids, length_in_part ? table_of_part(length_in_part) : Table(View(param_), name), name,
             rows_);
    return rows_;
}

Table BoundParameter::table_of_part(std::size_t length) const {
    return {View(param_).size() / length, {static_cast<py::ssize_t>(length)}};
}

Stream BoundParameter::rows_gradient(py::object& object, const Memory& memory, const Table& table,
                                     const Name& name) {
    const View param(param_);
    object = read_rows(object, table, name, rows_);
    const bool is_by_rows =
        param.ndim() < 2 || param.size() == 0 || param.extent(0) == 1 ||
        (std::is_sorted(order_.axes.begin(), order_.axes.end()) && order_.axes[0] == 0);
    if (!is_by_rows)
        throw py::value_error(name +
                              ": expected no Rows for a parameter whose rows are not in one "
                              "piece each; train numpy.ascontiguousarray(...) of it");
    memory.check_apart(object, View(object).bounds(), name);
    Stream stream{rows_.values, rows_.format};
    stream.rows = &rows_;
    return stream;
}

void BoundParameter::check_still(py::handle object, const Stream& stream) const {
    check_unchanged();
    if (!stream.data || stream.data == reinterpret_cast<const char*>(&number_)) return;
    const View view(object);
    if (view.data() != stream.data || (!stream.rows && !view.same_shape(View(param_))))
        throw py::value_error(name("gradient").str() +
                              ": expected an array that stays as it is during the step");
}

}  // namespace instep::bindings
