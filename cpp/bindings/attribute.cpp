#include "bindings/attribute.h"

#include <structmember.h>

#include <cstddef>
#include <new>
#include <optional>

#include "bindings/box.h"
#include "bindings/limits.h"
#include "bindings/stepper.h"
#include "bindings/unlocked.h"

namespace instep::bindings {
namespace {

struct Attribute {
    PyObject_HEAD;
    PyObject* name;
    Limits limits;
};

PyObject* new_attribute(PyTypeObject* type, PyObject*, PyObject*) {
    PyObject* const self = type->tp_alloc(type, 0);
    if (self) new (&as<Attribute>(self).limits) Limits();
    return self;
}

int init(PyObject* self, PyObject* given, PyObject*) {
    return succeeds(
        [&] { as<Attribute>(self).limits = Limits(py::reinterpret_borrow<py::tuple>(given)[0]); });
}

PyObject* get(PyObject* self, PyObject* owner, PyObject*) {
    if (!owner || owner == Py_None) return py::handle(self).inc_ref().ptr();
    return guarded([&] { return hyperparameter(owner, as<Attribute>(self).name); });
}

int set(PyObject* self, PyObject* owner, PyObject* value) {
    const Attribute& attribute = as<Attribute>(self);
    return succeeds([&] {
        if (!value) throw py::attribute_error("a hyperparameter cannot be deleted");
        const std::optional<double> number = attribute.limits.number(value);
        if (number && change_number(owner, attribute.name, *number, attribute.limits.is_whole()))
            return;
        result_of(
            [&] { return PyObject_CallMethod(owner, "_assign", "OO", attribute.name, value); });
    });
}

void free_attribute(PyObject* self) {
    Py_CLEAR(as<Attribute>(self).name);
    free_memory(self);
}

}  // namespace

void add_attribute(py::module_& module) {
    static PyMemberDef members[] = {
        {"name", T_OBJECT_EX, offsetof(Attribute, name), 0, "What it is called."},
        {nullptr, 0, 0, 0, nullptr}};
    PyTypeObject* const type =
        make_type("instep._core.Attribute", sizeof(Attribute), Py_TPFLAGS_BASETYPE,
                  {{Py_tp_new, reinterpret_cast<void*>(new_attribute)},
                   {Py_tp_init, reinterpret_cast<void*>(init)},
                   {Py_tp_descr_get, reinterpret_cast<void*>(get)},
                   {Py_tp_descr_set, reinterpret_cast<void*>(set)},
                   {Py_tp_members, members},
                   {Py_tp_dealloc, reinterpret_cast<void*>(free_attribute)}});
    module.attr("Attribute") = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(type));
}

}  // namespace instep::bindings
