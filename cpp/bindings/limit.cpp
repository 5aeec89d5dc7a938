#include "bindings/limit.h"

#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/unlocked.h"
#include "engine/limit.h"

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
    Touched all{View(grad).data(), View(grad).dtype(), {}, first.dtype(), first.size()};
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

}  // namespace

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

}  // namespace instep::bindings
