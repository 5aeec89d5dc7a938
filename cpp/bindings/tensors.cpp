#include "bindings/tensors.h"

#include <algorithm>
#include <utility>

#include "bindings/unlocked.h"

namespace instep::bindings {
namespace {

py::object interned(const char* name) {
    const auto result = py::reinterpret_steal<py::object>(PyUnicode_InternFromString(name));
    if (!result) throw py::error_already_set();
    return result;
}

py::object attribute(py::handle of, const py::object& name) {
    return result_of([&] { return PyObject_GetAttr(of.ptr(), name.ptr()); });
}

py::object method(py::handle of, const py::object& name) {
    return result_of([&] { return PyObject_CallMethodNoArgs(of.ptr(), name.ptr()); });
}

std::uintptr_t number(const py::object& object) {
    const std::size_t result = PyLong_AsSize_t(object.ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    return result;
}

}  // namespace

Tensors::Tensors(const py::list& params, const py::list& locals, py::object look, py::object counts)
    : data_ptr_(interned("data_ptr")),
      dtype_(interned("dtype")),
      grad_(interned("grad")),
      is_contiguous_(interned("is_contiguous")),
      look_(std::move(look)),
      counts_(std::move(counts)) {
    const bool fits = is_simple(counts_, true) && View(counts_).format() == Format::float32 &&
                      View(counts_).size() == params.size() && locals.size() == params.size();
    if (!fits) throw py::value_error("Tensors: expected as many locals and float32 counts");
    for (std::size_t k = 0; k < params.size(); ++k) {
        const py::object local = locals[k];
        tensors_.push_back({params[k], local, number(method(local, data_ptr_)), {}});
    }
}

py::bool_ Tensors::have_moved() const {
    return std::any_of(tensors_.begin(), tensors_.end(), [&](const Tensor& tensor) {
        return number(method(tensor.local, data_ptr_)) != tensor.address;
    });
}

py::list Tensors::gradients() {
    py::list result(tensors_.size());
    for (std::size_t k = 0; k < tensors_.size(); ++k) result[k] = gradient(tensors_[k]);
    return result;
}

py::object Tensors::gradient(Tensor& tensor) {
    const py::object grad = attribute(tensor.param, grad_);
    tensor.has_gradient = !grad.is_none();
    if (!tensor.has_gradient) return grad;
    const auto address = py::reinterpret_steal<py::object>(
        outlive([&] { return PyObject_CallMethodNoArgs(grad.ptr(), data_ptr_.ptr()); }));
    if (!address) PyErr_Clear();  // a sparse one has no memory of its own
    Seen& seen = tensor.seen;
    const py::object dtype = attribute(grad, dtype_);
    const bool is_same = address && seen.array && number(address) == seen.address &&
                         dtype.is(seen.dtype) && method(grad, is_contiguous_).is(py::bool_(true));
    if (is_same) return seen.array;
    const py::tuple found = call(look_, grad);
    if (const py::object array = found[1]; address && !array.is_none())
        seen = {number(address), dtype, array};
    return found[0];
}

py::object Tensors::count() {
    auto* const counts = reinterpret_cast<float*>(View(counts_).data());
    for (std::size_t k = 0; k < tensors_.size(); ++k)
        if (tensors_[k].has_gradient) counts[k] += 1;
    const auto has_gradient = [](const Tensor& tensor) { return tensor.has_gradient; };
    if (std::all_of(tensors_.begin(), tensors_.end(), has_gradient)) return py::none();
    py::list which;
    for (std::size_t k = 0; k < tensors_.size(); ++k)
        if (tensors_[k].has_gradient) which.append(k);
    return which;
}

int Tensors::traverse(visitproc visit, void* arg) const {
    Py_VISIT(look_.ptr());
    Py_VISIT(counts_.ptr());
    for (const Tensor& tensor : tensors_) {
        Py_VISIT(tensor.param.ptr());
        Py_VISIT(tensor.local.ptr());
        Py_VISIT(tensor.seen.array.ptr());
    }
    return 0;
}

void Tensors::clear() {
    const std::vector<Tensor> tensors = std::move(tensors_);
    tensors_.clear();
    look_ = py::object();
}

}  // namespace instep::bindings
