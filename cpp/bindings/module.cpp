// The extension module instep._core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <sstream>
#include <string>

#include "bindings/arrays.h"
#include "bindings/bound.h"
#include "bindings/boxes.h"
#include "bindings/limit.h"
#include "bindings/state.h"
#include "bindings/stepper.h"
#include "engine/dispatch.h"
#include "engine/float_mode.h"
#include "engine/processors.h"
#include "engine/threads.h"

namespace instep::bindings {
namespace {

/// What Python needs to know of a rule: its slots as (name, optional), its hyperparameters and its
/// scalars.
py::dict rules() {
    py::dict result;
    const Level& here = level();
    for (int k = 0; k < here.rule_count; ++k) {
        const RuleKernels& rule = here.rules[k];
        py::list slots, names, scalars;
        for (int s = 0; s < rule.slot_count; ++s)
            slots.append(py::make_tuple(rule.slots[s].name, rule.slots[s].optional));
        for (int h = 0; h < rule.hyperparameter_count; ++h) names.append(rule.hyperparameters[h]);
        for (int s = 0; s < rule.scalar_count; ++s) scalars.append(rule.scalars[s]);
        result[rule.name] = py::make_tuple(py::tuple(slots), py::tuple(names), py::tuple(scalars));
    }
    return result;
}

py::dict build_info() {
    py::dict info;
    info["version"] = INSTEP_VERSION;
    info["compiler"] = INSTEP_COMPILER;
    info["threading"] = threading_layer();
    info["isa_built"] = built_levels();
    info["isa"] = level().name;
    return info;
}

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

/// The engine's square root by multiplications, in its floating-point mode; None where the
/// instruction set has none. Whole vectors of 64 bytes.
py::object fused_square_roots(const Floats& x, const std::optional<Floats>& estimates) {
    if (!level().fused_square_roots) return py::none();
    if (x.size() % 16 || (estimates && estimates->size() != x.size()))
        throw py::value_error("x: expected a multiple of 16 numbers, and as many estimates");
    Floats roots(x.size());
    const FlushSubnormals flushing;
    level().fused_square_roots(x.data(), estimates ? estimates->data() : nullptr,
                               roots.mutable_data(), static_cast<std::size_t>(x.size()));
    return roots;
}

}  // namespace

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    try {
        level();
        read_environment();
        know_numpy();
    } catch (const std::runtime_error& error) {
        throw py::import_error(error.what());
    }
    add_boxes(module);
    add_stepper(module);
    module.def("touch", &touch, py::arg("grads"), py::arg("written"), py::arg("repeats"));
    module.def("zeros", &zeros, py::arg("shape"), py::arg("dtype"), py::arg("strides"),
               py::arg("place"));
    module.def("ask", &ask, py::arg("schedule"), py::arg("index"));
    module.def("alias", &alias, py::arg("array"));
    module.attr("rules") = rules();
    module.attr("ASK_SCHEDULE") = ask_schedule;
    module.attr("MOST_STEPS") = most_steps;
    module.def("build_info", &build_info);
    module.def("fused_square_roots", &fused_square_roots, py::arg("x"),
               py::arg("estimates") = py::none());
    module.def("num_threads", &num_threads);
    module.def("set_num_threads", &set_num_threads, py::arg("count"));
    module.def(
        "processor_quota",
        [](const std::string& cgroup, const std::string& mountinfo, const std::string& root) {
            std::istringstream groups(cgroup), mounts(mountinfo);
            return quota(groups, mounts, root);
        },
        py::arg("cgroup"), py::arg("mountinfo"), py::arg("root"));
}

}  // namespace instep::bindings
