#include "bindings/parameter.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

#include "bindings/foreign.h"

namespace instep::bindings {

BoundParameter::BoundParameter(py::object param, std::string path, const py::dict& state,
                               const py::dict& parts, py::object average, py::object accumulator,
                               const py::object& axes, const RuleInfo& rule)
    : as_bound_((check_parameter(param, Name(path)), View(param))),
      param_(std::move(param)),
      average_(std::move(average)),
      accumulator_(std::move(accumulator)),
      divisible_slot_(rule.divisible_slot),
      path_(std::move(path)),
      order_(axes.is_none() ? Order(View(param_))
                            : Order(View(param_), axes.cast<std::vector<int>>())) {
    is_c_contiguous_ = order_.c_contiguous;
    const View view(param_);
    if (!axes.is_none()) is_in_its_order_ = order_.axes == Order(view).axes;
    std::size_t known = 0;
    const auto named = [&](const char* its_name) -> py::object {
        PyObject* const found = PyDict_GetItemWithError(state.ptr(), py::str(its_name).ptr());
        if (!found && PyErr_Occurred()) throw py::error_already_set();
        if (!found) return py::none();
        ++known;
        return py::reinterpret_borrow<py::object>(found);
    };
    for (const auto& [key, its_axes] : parts) {
        SlotPart slot_part{key.cast<std::string>(), {}, its_axes.cast<std::vector<int>>()};
        slot_part.array = named(slot_part.name.c_str());
        check_part(slot_part.array, view, slot_part.axes, name(slot_part.name.c_str()));
        slot_parts_.push_back(std::move(slot_part));
    }
    for (int s = 0; s < rule.slot_count; ++s) {
        const SlotInfo& slot = rule.slots[s];
        slot_names_.push_back(slot.name);
        const bool is_whole = s != divisible_slot_ || slot_parts_.empty();
        slots_.push_back(is_whole ? named(slot.name) : py::none());
        if (!is_whole) continue;
        if (!slots_.back().is_none())
            check_state(slots_.back(), view, name(slot.name));
        else if (!slot.optional)
            throw py::type_error(name(slot.name) + ": expected an array, got None");
    }
    for (int s = 0; s < rule.scalar_count; ++s) {
        scalar_names_.push_back(rule.scalars[s]);
        scalars_.push_back(named(rule.scalars[s]));
        check_scalar(scalars_.back(), name(rule.scalars[s]));
    }
    if (!average_.is_none()) check_state(average_, view, name("average"));
    if (!accumulator_.is_none()) check_state(accumulator_, view, name("accumulator"));
    if (known == state.size()) return;
    const auto is_known = [&](const std::string& its_name) {
        const auto equals = [&](const char* other) { return its_name == other; };
        return std::any_of(slot_names_.begin(), slot_names_.end(), equals) ||
               std::any_of(scalar_names_.begin(), scalar_names_.end(), equals) ||
               std::any_of(slot_parts_.begin(), slot_parts_.end(),
                           [&](const SlotPart& slot_part) { return slot_part.name == its_name; });
    };
    for (const auto& [key, array] : state) {
        const auto its_name = key.cast<std::string>();
        if (is_known(its_name)) continue;
        check_statistics(array, view, name(its_name.c_str()));
        others_.emplace_back(its_name, py::reinterpret_borrow<py::object>(array));
    }
}

Name BoundParameter::name(const char* role) const {
    return Name(role, " of ", path_);
}

Array BoundParameter::array() {
    stream_strides_.clear();
    stream_strides_.reserve(stream_count + slot_parts_.size());
    Array array;
    Layout& layout = array.layout;
    const auto add = [&](int index, const py::object& object) {
        if (!object.is_none())
            layout.set(index, order_.stream(View(object), stream_strides_.emplace_back()));
    };
    layout.shape = order_.shape;
    layout.size = layout.block.count = View(param_).size();
    layout.precision = precision_of(View(param_).format());
    add(param_stream, param_);
    add(average_stream, average_);
    add(accumulated_stream, accumulator_);
    for (std::size_t s = 0; s < slots_.size(); ++s)
        add(first_slot + static_cast<int>(s), slots_[s]);
    if (!slot_parts_.empty()) {
        std::vector<Part> parts;
        for (const SlotPart& slot_part : slot_parts_) parts.push_back(part(slot_part));
        layout.set_parts(divisible_slot_, std::move(parts));
    }
    for (std::size_t s = 0; s < scalars_.size(); ++s)
        array.scalars[s] = reinterpret_cast<double*>(View(scalars_[s]).data());
    return array;
}

Part BoundParameter::part(const SlotPart& slot_part) {
    const View view(slot_part.array);
    Part part;
    std::vector<std::ptrdiff_t>& strides = stream_strides_.emplace_back();
    part.stream = {view.data(), view.format(), nullptr, false};
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
    for (const SlotPart& slot_part : slot_parts_)
        memory.add(slot_part.array, name(slot_part.name.c_str()));
    for (std::size_t s = 0; s < scalars_.size(); ++s)
        memory.add(scalars_[s], name(scalar_names_[s]));
    if (!average_.is_none()) memory.add(average_, name("average"));
    if (!accumulator_.is_none()) memory.add(accumulator_, name("accumulator"));
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
        return {reinterpret_cast<char*>(&number_), Format::float64, nullptr, false};
    }
    const Name name("gradient", " for ", path_);
    if (!is_array(object) && is_foreign(object)) object = foreign_gradient(object, name);
    check_gradient(object, View(param_), name);
    const View view(object);
    const Bounds bounds = view.bounds();
    if (bounds.low < free_.low || bounds.high > free_.high)
        free_ = memory.check_apart(object, bounds, name);
    return order_.stream(view, gradient_strides_);
}

void BoundParameter::check_still(py::handle object, const Stream& stream) const {
    check_unchanged();
    if (!stream.data || stream.data == reinterpret_cast<const char*>(&number_)) return;
    const View view(object);
    if (view.data() != stream.data || !view.same_shape(View(param_)))
        throw py::value_error(name("gradient").str() +
                              ": expected an array that stays as it is during the step");
}

}  // namespace instep::bindings
