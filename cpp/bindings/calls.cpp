#include "bindings/calls.h"

#include <structmember.h>

#include <cstddef>
#include <new>
#include <string>
#include <vector>

#include "bindings/bound.h"
#include "bindings/kernel.h"

namespace instep::bindings {
namespace {

/// Runs a function that may throw; returns its result, or null with Python's error set.
template <class Function>
PyObject* guarded(Function function) noexcept {
    try {
        return function();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const py::builtin_exception& error) {
        error.set_error();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

template <class Object>
Object& as(PyObject* self) {
    return *reinterpret_cast<Object*>(self);
}

PyObject* make_type(PyType_Spec& spec) {
    PyObject* const type = PyType_FromSpec(&spec);
    if (!type) throw py::error_already_set();
    return type;
}

// Stepper

struct Stepper {
    PyObject_HEAD;
    PyObject* binding;
    PyObject* core;  ///< of the binding
    Bound* bound;    ///< the same
};

PyObject* get_binding(PyObject* self, void*) {
    PyObject* const binding = as<Stepper>(self).binding;
    return py::handle(binding ? binding : Py_None).inc_ref().ptr();
}

int set_binding(PyObject* self, PyObject* value, void*) {
    const auto set = [&] {
        py::object binding, core;
        Bound* bound = nullptr;
        if (value && value != Py_None) {
            binding = py::reinterpret_borrow<py::object>(value);
            core = binding.attr("core");
            bound = core.cast<Bound*>();
        }
        Stepper& stepper = as<Stepper>(self);
        const py::object old_binding = py::reinterpret_steal<py::object>(stepper.binding);
        const py::object old_core = py::reinterpret_steal<py::object>(stepper.core);
        stepper.binding = binding.release().ptr();
        stepper.core = core.release().ptr();
        stepper.bound = bound;
        return Py_None;
    };
    return guarded(set) ? 0 : -1;
}

PyObject* step(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
    return guarded([&] {
        const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
        if (count + named != 1)
            throw py::type_error("step: expected one argument, the gradients, got " +
                                 std::to_string(count + named));
        if (named && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "grads") != 0)
            throw py::type_error("step: expected the argument grads, got " +
                                 std::string(py::str(PyTuple_GET_ITEM(names, 0))));
        const Stepper& stepper = as<Stepper>(self);
        if (!stepper.bound)
            throw std::runtime_error(
                "step: this optimizer has no parameters yet; call build(params)");
        // A schedule may bind the optimizer anew.
        const auto core = py::reinterpret_borrow<py::object>(stepper.core);
        stepper.bound->step(arguments[0]);
        return py::none().release().ptr();
    });
}

int traverse_stepper(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(as<Stepper>(self).binding);
    Py_VISIT(as<Stepper>(self).core);
    return 0;
}

int clear_stepper(PyObject* self) {
    as<Stepper>(self).bound = nullptr;
    Py_CLEAR(as<Stepper>(self).binding);
    Py_CLEAR(as<Stepper>(self).core);
    return 0;
}

void free_stepper(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_stepper(self);
    type->tp_free(self);
    Py_DECREF(type);
}

constexpr const char* step_documentation = R"(step($self, grads)
--

Update all parameters and their state in place.

Parameters
----------
grads : ndarray or nesting of list, tuple and dict
    The gradients, in the structure of the parameters (list and tuple count as the same).
    float32 or float64, whatever the parameter's dtype; of the parameter's shape, any
    strides; a float will do for a 0-d parameter. None for an array means that it has no
    gradient in this step.

Raises
------
RuntimeError
    If the optimizer is unbound, or in the middle of a step.
TypeError, ValueError
    If anything is wrong with a gradient, a parameter or the answer of a schedule. The
    message names the parameter by its path. Nothing has changed then.
)";

PyObject* stepper_type() {
    static PyMethodDef methods[] = {
        {"step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(step)),
         METH_FASTCALL | METH_KEYWORDS, step_documentation},
        {nullptr, nullptr, 0, nullptr}};
    static PyGetSetDef attributes[] = {
        {"_binding", get_binding, set_binding, "What the optimizer is bound to, or None.", nullptr},
        {nullptr, nullptr, nullptr, nullptr, nullptr}};
    static PyType_Slot slots[] = {{Py_tp_methods, methods},
                                  {Py_tp_getset, attributes},
                                  {Py_tp_traverse, reinterpret_cast<void*>(traverse_stepper)},
                                  {Py_tp_clear, reinterpret_cast<void*>(clear_stepper)},
                                  {Py_tp_dealloc, reinterpret_cast<void*>(free_stepper)},
                                  {0, nullptr}};
    static PyType_Spec spec = {"instep._core.Stepper", sizeof(Stepper), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                               slots};
    return make_type(spec);
}

// Kernel

struct KernelObject {
    PyObject_HEAD;
    vectorcallfunc call;
    Kernel* kernel;
};

PyObject* call_kernel(PyObject* self, PyObject* const* arguments, std::size_t count, PyObject*) {
    return guarded([&] {
        as<KernelObject>(self).kernel->run(arguments,
                                           static_cast<std::size_t>(PyVectorcall_NARGS(count)));
        return py::none().release().ptr();
    });
}

PyObject* new_kernel(PyTypeObject* type, PyObject* arguments, PyObject*) {
    return guarded([&] {
        const auto given = py::reinterpret_borrow<py::tuple>(arguments);
        if (given.size() != 4)
            throw py::type_error("Kernel: expected a rule's name, numbers, check and check_step");
        PyObject* const self = type->tp_alloc(type, 0);
        if (!self) throw py::error_already_set();
        auto made = py::reinterpret_steal<py::object>(self);
        as<KernelObject>(self).call = call_kernel;
        as<KernelObject>(self).kernel = new Kernel(
            given[0].cast<std::string>(), given[1].cast<std::size_t>(), given[2], given[3]);
        return made.release().ptr();
    });
}

int traverse_kernel(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    const Kernel* const kernel = as<KernelObject>(self).kernel;
    return kernel ? kernel->traverse(visit, arg) : 0;
}

int clear_kernel(PyObject* self) {
    if (Kernel* const kernel = as<KernelObject>(self).kernel) kernel->clear();
    return 0;
}

void free_kernel(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    delete as<KernelObject>(self).kernel;
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject* kernel_type() {
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", T_PYSSIZET, offsetof(KernelObject, call), READONLY, nullptr},
        {nullptr, 0, 0, 0, nullptr}};
    static PyType_Slot slots[] = {{Py_tp_members, members},
                                  {Py_tp_new, reinterpret_cast<void*>(new_kernel)},
                                  {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                                  {Py_tp_traverse, reinterpret_cast<void*>(traverse_kernel)},
                                  {Py_tp_clear, reinterpret_cast<void*>(clear_kernel)},
                                  {Py_tp_dealloc, reinterpret_cast<void*>(free_kernel)},
                                  {0, nullptr}};
    static PyType_Spec spec = {"instep._core.Kernel", sizeof(KernelObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
                               slots};
    return make_type(spec);
}

}  // namespace

void add_calls(py::module_& module) {
    module.attr("Stepper") = py::reinterpret_steal<py::object>(stepper_type());
    module.attr("Kernel") = py::reinterpret_steal<py::object>(kernel_type());
}

}  // namespace instep::bindings
