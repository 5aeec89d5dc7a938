// The extension module instep._core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/allocate.h"
#include "bindings/arrays.h"
#include "bindings/attribute.h"
#include "bindings/bound.h"
#include "bindings/boxes.h"
#include "bindings/codings.h"
#include "bindings/formula.h"
#include "bindings/kernel.h"
#include "bindings/options.h"
#include "bindings/probes.h"
#include "bindings/schedule.h"
#include "bindings/stepper.h"
#include "engine/dispatch.h"
#include "engine/threads.h"
#include "engine/tuning.h"

namespace instep::bindings {
namespace {

py::dict all_rules() {
    py::dict result;
    for (const Rule& rule : rules()) result[rule.info.name] = described(rule.info);
    return result;
}

/// The names of the formats that parameters and gradients may have.
py::tuple all_formats() {
    py::list names;
    for (const FormatInfo& format : formats) names.append(format.name);
    return py::tuple(names);
}

/// What there is of each coding.
py::dict all_codings() {
    py::dict result;
    for (const CodingInfo& coding : codings) {
        py::dict described;
        described["itemsize"] = coding.itemsize;
        described["elements"] = coding.elements;
        described["companion_bytes"] = coding.companion_bytes;
        result[coding.name] = described;
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

}  // namespace

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    try {
        level();
        read_environment();
        read_prefetch_setting();
        know_numpy();
    } catch (const std::runtime_error& error) {
        throw py::import_error(error.what());
    }
    add_boxes(module);
    add_formula(module);
    add_stepper(module);
    add_attribute(module);
    add_probes(module);
    module.attr("rules") = all_rules();
    module.attr("formats") = all_formats();
    module.attr("codings") = all_codings();
    module.attr("options") = names_of<Options>();
    module.attr("group_options") = names_of<GroupOptions>();
    module.attr("ASK_SCHEDULE") = ask_schedule;
    module.attr("MOST_STEPS") = most_steps;
    module.def("zeros", &zeros, py::arg("shape"), py::arg("dtype"), py::arg("strides"),
               py::arg("place"));
    module.def("alias", &alias, py::arg("array"));
    module.def("encode", &encode, py::arg("numbers"), py::arg("coding"), py::arg("codes"),
               py::arg("beside"));
    module.def("decode", &decode, py::arg("codes"), py::arg("coding"), py::arg("beside"),
               py::arg("numbers"));
    module.def("ask", &ask, py::arg("schedule"), py::arg("index"));
    module.def("window_share", &window_share, py::arg("calls"));
    module.def("update", &update, py::arg("rule"), py::arg("param"), py::arg("grad"),
               py::arg("out"), py::arg("state"), py::arg("parts"), py::arg("step"),
               py::arg("told"));
    module.def("kept_beside", &kept_beside, py::arg("param"), py::arg("in_place"),
               py::arg("state"));
    module.def("know_rows", &know_rows, py::arg("rows"));
    module.def("build_info", &build_info);
    module.def("num_threads", &num_threads);
    module.def("set_num_threads", &set_num_threads, py::arg("count"));
}

}  // namespace instep::bindings
