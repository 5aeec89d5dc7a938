#include "bindings/boxes.h"

#include <pybind11/critical_section.h>
#include <pybind11/stl.h>
#include <structmember.h>

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

#include "bindings/bound.h"
#include "bindings/box.h"
#include "bindings/kernel.h"
#include "bindings/tensors.h"
#include "bindings/tree.h"

namespace instep::bindings {
namespace {

/// So many positional arguments, or TypeError.
py::tuple positional(PyObject* given, PyObject* named, std::size_t count, const char* expected) {
    auto arguments = py::reinterpret_borrow<py::tuple>(given);
    if (arguments.size() != count || (named && PyDict_GET_SIZE(named) != 0))
        throw py::type_error(expected);
    return arguments;
}

// Tree

PyObject* new_tree(PyTypeObject*, PyObject* given, PyObject* named) {
    return guarded([&] {
        const py::tuple arguments =
            positional(given, named, 4, "Tree: expected params, group_type, ignore and writable");
        return Box<Tree>::make(std::make_unique<Tree>(arguments[0], arguments[1], arguments[2],
                                                      arguments[3].cast<bool>()));
    });
}

PyObject* same_structure(PyObject* self, PyObject* other) {
    return guarded(
        [&] { return py::bool_(Box<Tree>::of(self).same_structure(Box<Tree>::checked(other))); });
}

PyObject* unflatten(PyObject* self, PyObject* values) {
    return guarded([&] {
        return Box<Tree>::of(self).unflatten(
            py::reinterpret_borrow<py::object>(values).cast<py::list>());
    });
}

PyObject* tree_gradients(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    return guarded([&] {
        if (count != 2) throw py::type_error("gradients: expected grads and lenient");
        return py::cast(
            Box<Tree>::of(self).gradients(arguments[0], py::handle(arguments[1]).cast<bool>()));
    });
}

PyObject* check_tree(PyObject* self, PyObject*) {
    return guarded([&] {
        Box<Tree>::of(self).check_unchanged();
        return py::none();
    });
}

PyObject* tree_ids(PyObject* self, PyObject* given) {
    return guarded([&] { return py::cast(Box<Tree>::of(self).ids(given)); });
}

PyObject* tree_params(PyObject* self, void*) {
    return guarded([&] { return Box<Tree>::of(self).params(); });
}

template <auto member>
PyObject* tree_attribute(PyObject* self, void*) {
    return guarded([&] { return py::cast(Box<Tree>::of(self).*member); });
}

py::object tree_type() {
    static PyMethodDef methods[] = {
        {"same_structure", same_structure, METH_O, nullptr},
        {"unflatten", unflatten, METH_O, nullptr},
        {"gradients", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(tree_gradients)),
         METH_FASTCALL, nullptr},
        {"ids", tree_ids, METH_O, nullptr},
        {"check_unchanged", check_tree, METH_NOARGS, nullptr},
        {nullptr, nullptr, 0, nullptr}};
    static PyGetSetDef attributes[] = {
        {"params", tree_params, nullptr, nullptr, nullptr},
        {"leaves", tree_attribute<&Tree::leaves>, nullptr, nullptr, nullptr},
        {"objects", tree_attribute<&Tree::objects>, nullptr, nullptr, nullptr},
        {"paths", tree_attribute<&Tree::paths>, nullptr, nullptr, nullptr},
        {"groups", tree_attribute<&Tree::groups>, nullptr, nullptr, nullptr},
        {nullptr, nullptr, nullptr, nullptr, nullptr}};
    return Box<Tree>::make_type("instep._core.Tree", 0,
                                {{Py_tp_new, reinterpret_cast<void*>(new_tree)},
                                 {Py_tp_methods, methods},
                                 {Py_tp_getset, attributes}});
}

// Bound

PyObject* new_bound(PyTypeObject*, PyObject* given, PyObject* named) {
    return guarded([&] {
        if (PyTuple_GET_SIZE(given) != 0 || !named)
            throw py::type_error("Bound: expected arguments by name");
        return Box<Bound>::make(std::make_unique<Bound>(py::reinterpret_borrow<py::dict>(named)));
    });
}

PyObject* refresh(PyObject* self, PyObject*) {
    return guarded([&] {
        Box<Bound>::of(self).refresh();
        return py::none();
    });
}

PyObject* check_unchanged(PyObject* self, PyObject*) {
    return guarded([&] {
        Box<Bound>::of(self).check_unchanged();
        return py::none();
    });
}

PyObject* is_apart(PyObject* self, PyObject* array) {
    return guarded([&] {
        return py::bool_(Box<Bound>::of(self).is_apart(py::reinterpret_borrow<py::object>(array)));
    });
}

PyObject* orders(PyObject* self, PyObject*) {
    return guarded([&] { return py::cast(Box<Bound>::of(self).orders()); });
}

PyObject* values(PyObject* self, PyObject* param) {
    return guarded(
        [&] { return Box<Bound>::of(self).values(py::handle(param).cast<std::size_t>()); });
}

PyObject* counters(PyObject* self, PyObject*) {
    return guarded([&] {
        const Counters now = Box<Bound>::of(self).counters();
        py::dict named;
        named["iterations"] = now.iterations;
        named["calls"] = now.calls;
        named["skipped_steps"] = now.skipped_steps;
        named["window"] = now.window;
        named["grad_norm"] = now.grad_norm;
        named["steps"] = now.steps;
        named["in_window"] = now.in_window;
        named["begun"] = now.begun;
        named["frozen"] = now.frozen;
        named["rows_in_window"] = now.rows_in_window;
        named["swapped"] = now.swapped;
        return named;
    });
}

PyObject* bound_tree(PyObject* self, void*) {
    const py::scoped_critical_section alone{py::handle(self)};  // another one may be moved in
    return guarded([&] { return Box<Bound>::of(self).tree(); });
}

/// What a member function returns, as an object.
template <auto member>
PyObject* bound_attribute(PyObject* self, void*) {
    return guarded([&]() -> py::object {
        auto value = (Box<Bound>::of(self).*member)();
        if constexpr (std::is_base_of_v<py::handle, decltype(value)>)
            return value;
        else
            return py::cast(value);
    });
}

py::object bound_type() {
    static PyMethodDef methods[] = {{"refresh", refresh, METH_NOARGS, nullptr},
                                    {"check_unchanged", check_unchanged, METH_NOARGS, nullptr},
                                    {"is_apart", is_apart, METH_O, nullptr},
                                    {"orders", orders, METH_NOARGS, nullptr},
                                    {"values", values, METH_O, nullptr},
                                    {"counters", counters, METH_NOARGS, nullptr},
                                    {nullptr, nullptr, 0, nullptr}};
    static PyGetSetDef attributes[] = {
        {"tree", bound_tree, nullptr, nullptr, nullptr},
        {"schedule_index", bound_attribute<&Bound::schedule_index>, nullptr, nullptr, nullptr},
        {"iterations", bound_attribute<&Bound::iterations>, nullptr, nullptr, nullptr},
        {"skipped_steps", bound_attribute<&Bound::skipped_steps>, nullptr, nullptr, nullptr},
        {"grad_norm", bound_attribute<&Bound::grad_norm>, nullptr, nullptr, nullptr},
        {"watched", bound_attribute<&Bound::watched>, nullptr, nullptr, nullptr},
        {nullptr, nullptr, nullptr, nullptr, nullptr}};
    return Box<Bound>::make_type("instep._core.Bound", 0,
                                 {{Py_tp_new, reinterpret_cast<void*>(new_bound)},
                                  {Py_tp_methods, methods},
                                  {Py_tp_getset, attributes}});
}

// Kernel

PyObject* call_kernel(PyObject* self, PyObject* const* arguments, std::size_t count, PyObject*) {
    return guarded([&] {
        Box<Kernel>::of(self).run(arguments, static_cast<std::size_t>(PyVectorcall_NARGS(count)));
        return py::none();
    });
}

PyObject* new_kernel(PyTypeObject*, PyObject* given, PyObject* named) {
    return guarded([&] {
        const py::tuple arguments = positional(
            given, named, 4, "Kernel: expected a rule's name, numbers, check and check_step");
        return Box<Kernel>::make(
            std::make_unique<Kernel>(arguments[0], arguments[1], arguments[2], arguments[3]),
            call_kernel);
    });
}

py::object kernel_type() {
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", T_PYSSIZET, offsetof(Box<Kernel>, call), READONLY, nullptr},
        {nullptr, 0, 0, 0, nullptr}};
    return Box<Kernel>::make_type("instep._core.Kernel", Py_TPFLAGS_HAVE_VECTORCALL,
                                  {{Py_tp_new, reinterpret_cast<void*>(new_kernel)},
                                   {Py_tp_members, members},
                                   {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)}});
}

// Tensors

PyObject* new_tensors(PyTypeObject*, PyObject* given, PyObject* named) {
    return guarded([&] {
        const py::tuple arguments =
            positional(given, named, 5, "Tensors: expected type, groups, locals, look and counts");
        return Box<Tensors>::make(std::make_unique<Tensors>(
            arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]));
    });
}

/// A method of one thread at a time.
template <auto member>
PyObject* of_tensors(PyObject* self, PyObject*) {
    return guarded([&] {
        const py::scoped_critical_section alone{py::handle(self)};
        return (Box<Tensors>::of(self).*member)();
    });
}

PyObject* remember_state(PyObject* self, PyObject* state) {
    return guarded([&] {
        const py::scoped_critical_section alone{py::handle(self)};
        Box<Tensors>::of(self).remember(py::reinterpret_borrow<py::dict>(state));
        return py::none();
    });
}

PyObject* have_changed(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    return guarded([&] {
        if (count != 2 || !PyList_Check(arguments[0]) || !PyDict_Check(arguments[1]))
            throw py::type_error("have_changed: expected a list of groups and a dict of state");
        const py::scoped_critical_section alone{py::handle(self)};
        return Box<Tensors>::of(self).have_changed(py::reinterpret_borrow<py::list>(arguments[0]),
                                                   py::reinterpret_borrow<py::dict>(arguments[1]));
    });
}

py::object tensors_type() {
    static PyMethodDef methods[] = {
        {"remember", remember_state, METH_O, nullptr},
        {"have_changed", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(have_changed)),
         METH_FASTCALL, nullptr},
        {"gradients", of_tensors<&Tensors::gradients>, METH_NOARGS, nullptr},
        {"count", of_tensors<&Tensors::count>, METH_NOARGS, nullptr},
        {nullptr, nullptr, 0, nullptr}};
    return Box<Tensors>::make_type(
        "instep._core.Tensors", 0,
        {{Py_tp_new, reinterpret_cast<void*>(new_tensors)}, {Py_tp_methods, methods}});
}

}  // namespace

void add_boxes(py::module_& module) {
    module.attr("Tree") = tree_type();
    module.attr("Bound") = bound_type();
    module.attr("Kernel") = kernel_type();
    module.attr("Tensors") = tensors_type();
}

}  // namespace instep::bindings
