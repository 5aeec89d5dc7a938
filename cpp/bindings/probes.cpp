#include "bindings/probes.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/unlocked.h"
#include "engine/bandwidth.h"
#include "engine/choice.h"
#include "engine/dispatch.h"
#include "engine/float_mode.h"
#include "engine/processors.h"
#include "engine/tuning.h"

namespace instep::bindings {
namespace {

Touched touched(py::handle grad, const py::list& arrays, const std::string& path) {
    if (arrays.empty() || arrays.size() > static_cast<std::size_t>(max_touched))
        throw py::value_error(path + ": expected 1 to " + std::to_string(max_touched) +
                              " arrays, got " + std::to_string(arrays.size()));
    for (std::size_t k = 0; k < arrays.size(); ++k)
        check_parameter(arrays[k], Name(path + "[" + std::to_string(k) + "]"));
    const View first(arrays[0]);
    if (first.format() != format_of(precision_of(first.format())))
        throw py::type_error(path + ": expected float32 or float64 arrays");
    check_gradient(grad, first, Name("gradient", " of ", path));
    Touched all{
        View(grad).data(), View(grad).format(), {}, precision_of(first.format()), first.size()};
    for (const py::handle each : arrays) {
        check_state(each, first, {first.format()}, Name(path));
        all.arrays.push_back(View(each).data());
    }
    std::vector<py::handle> every(arrays.begin(), arrays.end());
    every.push_back(grad);
    for (const py::handle each : every)
        if (!View(each).has_flag(py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_))
            throw py::value_error(path + ": expected C-contiguous arrays");
    return all;
}

/// Adds each gradient to each array of the list beside it, `repeats` times over. All of them
/// C-contiguous, those of one list of one dtype and of the gradient's shape. Fetches `prefetch`
/// bytes ahead.
void touch(const py::list& grads, const py::list& written, std::int64_t repeats,
           std::size_t prefetch) {
    if (grads.size() != written.size())
        throw py::value_error("written: expected " + std::to_string(grads.size()) +
                              " lists, one per gradient, got " + std::to_string(written.size()));
    std::vector<Touched> all;
    for (std::size_t k = 0; k < grads.size(); ++k)
        all.push_back(
            touched(grads[k], written[k].cast<py::list>(), "written[" + std::to_string(k) + "]"));
    const Unlocked unlocked;
    const InFlight in_flight;
    touch_all(all, prefetch, repeats);
}

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

/// The engine's square root by multiplications, in its floating-point mode; None where the
/// instruction set has none. Whole vectors of 64 bytes.
py::object fused_square_roots(const Floats& x, const std::optional<Floats>& estimates) {
    const auto roots_of = unit(Precision::float32).fused_square_roots;
    if (!roots_of) return py::none();
    if (x.size() % 16 || (estimates && estimates->size() != x.size()))
        throw py::value_error("x: expected a multiple of 16 numbers, and as many estimates");
    Floats roots(x.size());
    const FlushSubnormals flushing;
    roots_of(x.data(), estimates ? estimates->data() : nullptr, roots.mutable_data(),
             static_cast<std::size_t>(x.size()));
    return roots;
}

std::optional<int> processor_quota(const std::string& cgroup, const std::string& mountinfo,
                                   const std::string& root) {
    std::istringstream groups(cgroup), mounts(mountinfo);
    return quota(groups, mounts, root);
}

/// Leaves the processor that this thread is on; tells it and the one that it is on then.
std::pair<int, int> leave_this_processor() {
    const int before = this_processor();
    leave_processor(before);
    return {before, this_processor()};
}

/// What INSTEP_PREFETCH says, or None, and what was found out about the manner of steps so far.
py::dict tuning() {
    py::list found;
    for (const Finding& each : findings()) {
        py::list manners;
        for (std::size_t way = 0; way < each.manners.size(); ++way) {
            py::dict manner;
            manner["prefetch"] = each.manners[way].bytes_ahead;
            manner["half_of_roots"] = each.manners[way].half_of_roots;
            manner["seconds_per_byte"] = each.seconds_per_byte[way];
            manners.append(manner);
        }
        py::dict finding;
        finding["precision"] = formats[static_cast<int>(format_of(each.precision))].name;
        finding["streams"] = each.streams;
        finding["least_bytes"] = each.least_bytes;
        finding["small_arrays"] = each.small_arrays;
        finding["watched"] = each.watched;
        finding["several_threads"] = each.several_threads;
        finding["manners"] = manners;
        finding["chosen"] = each.chosen;
        found.append(finding);
    }
    py::dict result;
    result["prefetch"] = prefetch_setting();
    result["findings"] = found;
    return result;
}

/// A choice as an object.
py::capsule new_choice() {
    return py::capsule(new Choice, [](void* choice) { delete static_cast<Choice*>(choice); });
}

/// The ways that a thread goes for so many pieces of work in a row, with invented times.
std::vector<int> choose(const py::capsule& choice, int ways, int pieces,
                        const py::object& time_of) {
    if (ways < 1 || ways > Choice::most_ways)
        throw py::value_error("ways: expected 1 to " + std::to_string(Choice::most_ways));
    std::vector<int> went;
    Trial trial(choice.get_pointer<Choice>(), ways);
    for (int k = 0; k < pieces; ++k) {
        went.push_back(trial.next());
        if (trial.measures()) trial.tell(time_of(went.back()).cast<float>());
    }
    return went;
}

}  // namespace

void add_probes(py::module_& module) {
    module.def("tuning", &tuning);
    module.def("new_choice", &new_choice);
    module.def("choose", &choose, py::arg("choice"), py::arg("ways"), py::arg("pieces"),
               py::arg("time_of"));
    module.attr("CHOICE_SAMPLES") = Choice::samples;
    module.attr("CHOICE_REST") = Choice::rest;
    module.def("touch", &touch, py::arg("grads"), py::arg("written"), py::arg("repeats"),
               py::arg("prefetch") = 0);
    module.def("fused_square_roots", &fused_square_roots, py::arg("x"),
               py::arg("estimates") = py::none());
    module.def("processor_quota", &processor_quota, py::arg("cgroup"), py::arg("mountinfo"),
               py::arg("root"));
    module.def("leave_this_processor", &leave_this_processor);
}

}  // namespace instep::bindings
