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

Tensors::Tensors(py::object type, const py::list& groups, const py::list& locals, py::object look,
                 py::object counts)
    : grad_(interned("grad")),
      is_neg_(interned("is_neg")),
      params_(interned("params")),
      exchange_(type),
      type_(std::move(type)),
      look_(std::move(look)),
      counts_(std::move(counts)) {
    for (const py::handle group : groups) {
        for (const py::handle param : group)
            tensors_.emplace_back().param = py::reinterpret_borrow<py::object>(param);
        sizes_.push_back(py::len(group));
    }
    if (tensors_.size() != locals.size() || !is_simple(counts_, true) ||
        View(counts_).format() != Format::float32 || View(counts_).size() != locals.size())
        throw py::value_error("Tensors: expected as many locals and float32 counts");
    for (std::size_t k = 0; k < locals.size(); ++k) {
        Tensor& tensor = tensors_[k];
        tensor.local = locals[k];
        DlTensor described;
        if (!describe(tensor.local, described))
            throw py::type_error("Tensors: expected dense tensors in this process as locals");
        tensor.layout = Layout(described);
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
    const float* const counted = counts();
    for (std::size_t k = 0; k < tensors_.size(); ++k) {
        const Tensor& tensor = tensors_[k];
        DlTensor now;
        if (counted[k] != tensor.count || !describe(tensor.local, now) || !tensor.layout.is_of(now))
            return true;
    }
    return false;
}

/// Whether those are the groups' parameters.
bool Tensors::holds(const py::list& groups) const {
    if (groups.size() != sizes_.size()) return false;
    auto tensor = tensors_.begin();
    for (std::size_t group = 0; group < sizes_.size(); ++group) {
        PyObject* const its = PyList_GET_ITEM(groups.ptr(), static_cast<py::ssize_t>(group));
        PyObject* const params = PyDict_Check(its) ? PyDict_GetItem(its, params_.ptr()) : nullptr;
        if (!params || !PyList_Check(params) || PyList_GET_SIZE(params) != sizes_[group])
            return false;
        for (py::ssize_t at = 0; at < sizes_[group]; ++at, ++tensor)
            if (tensor->param.ptr() != PyList_GET_ITEM(params, at)) return false;
    }
    return true;
}

bool Tensors::remembers(const py::dict& state) const {
    auto known = state_.begin();
    const bool is_known = for_each_in(state.ptr(), [&](PyObject* object) {
        return known != state_.end() && (known++)->ptr() == object;
    });
    return is_known && known == state_.end();
}

py::list Tensors::gradients() {
    py::list result(sizes_.size());
    auto tensor = tensors_.begin();
    for (std::size_t group = 0; group < sizes_.size(); ++group) {
        py::list its(sizes_[group]);
        for (py::ssize_t at = 0; at < sizes_[group]; ++at) its[at] = gradient(*tensor++);
        result[group] = its;
    }
    return result;
}

py::object Tensors::gradient(Tensor& tensor) {
    const py::object grad = attribute(tensor.param, grad_);
    tensor.has_gradient = !grad.is_none();
    if (!tensor.has_gradient) return grad;
    DlTensor described;
    const bool has_memory = describe(grad, described);  // a sparse one has none
    Seen& seen = tensor.seen;
    if (has_memory && seen.array && seen.layout.is_of(described) && !is_negated(grad))
        return seen.array;
    const py::tuple found = call(look_, grad);
    if (const py::object array = found[1]; !array.is_none() && describe(grad, described))
        seen = {Layout(described), array};
    return found[0];
}

bool Tensors::describe(const py::object& tensor, DlTensor& described) const {
    const auto type = reinterpret_cast<PyTypeObject*>(type_.ptr());
    return PyObject_TypeCheck(tensor.ptr(), type) && exchange_.describe(tensor, described);
}

/// Whether a tensor's numbers are those of its memory with the other sign, of which DLPack can't
/// tell.
bool Tensors::is_negated(const py::object& tensor) const {
    const auto call = [&] { return PyObject_CallMethodNoArgs(tensor.ptr(), is_neg_.ptr()); };
    return result_of(call).ptr() == Py_True;
}

py::object Tensors::count() {
    float* const counted = counts();
    for (std::size_t k = 0; k < tensors_.size(); ++k)
        if (tensors_[k].has_gradient) tensors_[k].count = counted[k] += 1;
    const auto has_gradient = [](const Tensor& tensor) { return tensor.has_gradient; };
    if (std::all_of(tensors_.begin(), tensors_.end(), has_gradient)) return py::none();
    py::list which;
    for (std::size_t k = 0; k < tensors_.size(); ++k)
        if (tensors_[k].has_gradient) which.append(k);
    return which;
}

int Tensors::traverse(visitproc visit, void* arg) const {
    Py_VISIT(type_.ptr());
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
