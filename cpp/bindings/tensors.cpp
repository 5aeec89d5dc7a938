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

/// Whether a method says so.
bool is(py::handle of, const py::object& name) {
    return method(of, name).ptr() == Py_True;
}

std::uintptr_t number(const py::object& object) {
    const std::size_t result = PyLong_AsSize_t(object.ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    return result;
}

/// Calls visit(object) for a dict's keys and values and, where those are dicts, for theirs; until
/// it returns false.
template <class Visit>
bool for_each_in(PyObject* dict, const Visit& visit, int depth = 2) {
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(dict, &at, &key, &value);) {
        if (!visit(key) || !visit(value)) return false;
        if (depth > 1 && PyDict_Check(value) && !for_each_in(value, visit, depth - 1)) return false;
    }
    return true;
}

}  // namespace

Tensors::Tensors(const py::list& groups, const py::list& locals, py::object look, py::object counts)
    : data_ptr_(interned("data_ptr")),
      dtype_(interned("dtype")),
      grad_(interned("grad")),
      is_contiguous_(interned("is_contiguous")),
      is_neg_(interned("is_neg")),
      params_(interned("params")),
      look_(std::move(look)),
      counts_(std::move(counts)) {
    for (std::size_t group = 0; group < groups.size(); ++group)
        for (const py::handle param : groups[group]) {
            Tensor& tensor = tensors_.emplace_back();
            tensor.param = py::reinterpret_borrow<py::object>(param);
            tensor.group = group;
        }
    if (tensors_.size() != locals.size() || !is_simple(counts_, true) ||
        View(counts_).format() != Format::float32 || View(counts_).size() != locals.size())
        throw py::value_error("Tensors: expected as many locals and float32 counts");
    for (std::size_t k = 0; k < locals.size(); ++k) {
        Tensor& tensor = tensors_[k];
        tensor.local = locals[k];
        tensor.address = number(method(tensor.local, data_ptr_));
        tensor.is_contiguous = is(tensor.local, is_contiguous_);
    }
}

void Tensors::remember(const py::dict& state) {
    state_.clear();
    for_each_in(state.ptr(), [&](PyObject* object) {
        state_.push_back(py::reinterpret_borrow<py::object>(object));
        return true;
    });
    for (std::size_t k = 0; k < tensors_.size(); ++k) tensors_[k].count = counts()[k];
}

py::bool_ Tensors::have_changed(const py::list& groups, const py::dict& state) const {
    if (!holds(groups) || !remembers(state)) return true;
    for (std::size_t k = 0; k < tensors_.size(); ++k) {
        const Tensor& tensor = tensors_[k];
        if (counts()[k] != tensor.count ||
            number(method(tensor.local, data_ptr_)) != tensor.address ||
            is(tensor.local, is_contiguous_) != tensor.is_contiguous)
            return true;
    }
    return false;
}

/// Whether those are the groups' parameters.
bool Tensors::holds(const py::list& groups) const {
    std::size_t k = 0;
    for (std::size_t group = 0; group < groups.size(); ++group) {
        PyObject* const its = PyList_GET_ITEM(groups.ptr(), static_cast<py::ssize_t>(group));
        PyObject* const params = PyDict_Check(its) ? PyDict_GetItem(its, params_.ptr()) : nullptr;
        if (!params || !PyList_Check(params)) return false;
        for (Py_ssize_t at = 0; at < PyList_GET_SIZE(params); ++at, ++k)
            if (k == tensors_.size() || tensors_[k].group != group ||
                tensors_[k].param.ptr() != PyList_GET_ITEM(params, at))
                return false;
    }
    return k == tensors_.size();
}

bool Tensors::remembers(const py::dict& state) const {
    auto known = state_.begin();
    const bool is_known = for_each_in(state.ptr(), [&](PyObject* object) {
        return known != state_.end() && (known++)->ptr() == object;
    });
    return is_known && known == state_.end();
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
                         dtype.is(seen.dtype) && is(grad, is_contiguous_) && !is(grad, is_neg_);
    if (is_same) return seen.array;
    const py::tuple found = call(look_, grad);
    if (const py::object array = found[1]; address && !array.is_none())
        seen = {number(address), dtype, array};
    return found[0];
}

py::object Tensors::count() {
    for (std::size_t k = 0; k < tensors_.size(); ++k)
        if (tensors_[k].has_gradient) tensors_[k].count = counts()[k] += 1;
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
    for (const py::object& object : state_) Py_VISIT(object.ptr());
    for (const Tensor& tensor : tensors_) {
        Py_VISIT(tensor.param.ptr());
        Py_VISIT(tensor.local.ptr());
        Py_VISIT(tensor.seen.array.ptr());
    }
    return 0;
}

void Tensors::clear() {
    const std::vector<Tensor> tensors = std::exchange(tensors_, {});
    const std::vector<py::object> state = std::exchange(state_, {});
    look_ = py::object();
}

}  // namespace instep::bindings
