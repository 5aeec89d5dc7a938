#include "bindings/probes.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/unlocked.h"
#include "engine/bandwidth.h"
#include "engine/dispatch.h"
#include "engine/float_mode.h"
#include "engine/processors.h"

namespace instep::bindings {
namespace {

Touched touched(py::handle grad, const py::list& arrays, const std::string& path) {
    if (arrays.empty() || arrays.size() > static_cast<std::size_t>(max_touched))
        throw py::value_error(path + ": expected 1 to " + std::to_string(max_touched) +
                              " arrays, got " + std::to_string(arrays.size()));
    for (std::size_t k = 0; k < arrays.size(); ++k)
        check_parameter(arrays[k], Name(path + "[" + std::to_string(k) + "]"));
    const View first(arrays[0]);
    check_gradient(grad, first, Name("gradient", " of ", path));
    Touched all{
        View(grad).data(), View(grad).format(), {}, precision_of(first.format()), first.size()};
    for (const py::handle each : arrays) {
        check_state(each, first, Name(path));
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
/// C-contiguous, those of one list of one dtype and of the gradient's shape.
void touch(const py::list& grads, const py::list& written, std::int64_t repeats) {
    if (grads.size() != written.size())
        throw py::value_error("written: expected " + std::to_string(grads.size()) +
                              " lists, one per gradient, got " + std::to_string(written.size()));
    std::vector<Touched> all;
    for (std::size_t k = 0; k < grads.size(); ++k)
        all.push_back(
            touched(grads[k], written[k].cast<py::list>(), "written[" + std::to_string(k) + "]"));
    const Unlocked unlocked;
    const InFlight in_flight;
    touch_all(all, repeats);
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

}  // namespace

void add_probes(py::module_& module) {
    module.def("touch", &touch, py::arg("grads"), py::arg("written"), py::arg("repeats"));
    module.def("fused_square_roots", &fused_square_roots, py::arg("x"),
               py::arg("estimates") = py::none());
    module.def("processor_quota", &processor_quota, py::arg("cgroup"), py::arg("mountinfo"),
               py::arg("root"));
}

}  // namespace instep::bindings
