// C++ objects in plain CPython types. Calls of pybind11's classes cost ten times as much, and where
// memory runs out while one of theirs is made, the process ends.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace instep::bindings {

namespace py = pybind11;

/// Runs a function that may throw and returns a py::object; returns that, or null with Python's
/// error set.
template <class Function>
PyObject* guarded(Function function) noexcept {
    try {
        return py::object(function()).release().ptr();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const py::builtin_exception& error) {
        error.set_error();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        // pybind11 throws its own where Python has told already what is wrong.
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

/// The same for what returns nothing: 0, or -1 with Python's error set.
template <class Function>
int succeeds(Function function) noexcept {
    PyObject* const done = guarded([&] {
        function();
        return py::none();
    });
    Py_XDECREF(done);
    return done ? 0 : -1;
}

template <class Object>
Object& as(PyObject* self) {
    return *reinterpret_cast<Object*>(self);
}

inline PyTypeObject* make_type(const char* name, std::size_t size, unsigned long flags,
                               std::vector<PyType_Slot> slots) {
    slots.push_back({0, nullptr});
    PyType_Spec spec = {name, static_cast<int>(size), 0,
                        static_cast<unsigned>(Py_TPFLAGS_DEFAULT | flags), slots.data()};
    PyObject* const type = PyType_FromSpec(&spec);
    if (!type) throw py::error_already_set();
    return reinterpret_cast<PyTypeObject*>(type);
}

/// What frees an object of such a type, once what it holds is gone.
inline void free_memory(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/// Python's object that owns one of C++, which Python's garbage collector looks into.
template <class Object>
struct Box {
    PyObject_HEAD;
    Object* object;
    vectorcallfunc call;  ///< where it can be called

    static inline PyTypeObject* type = nullptr;

    /// The type, with these slots besides; the same one where the module is loaded again.
    static py::object make_type(const char* name, unsigned long flags,
                                std::vector<PyType_Slot> slots) {
        slots.push_back({Py_tp_traverse, reinterpret_cast<void*>(traverse)});
        slots.push_back({Py_tp_clear, reinterpret_cast<void*>(clear)});
        slots.push_back({Py_tp_dealloc, reinterpret_cast<void*>(free)});
        if (!type)
            type = bindings::make_type(name, sizeof(Box), Py_TPFLAGS_HAVE_GC | flags,
                                       std::move(slots));
        return py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(type));
    }
    static py::object make(std::unique_ptr<Object> object, vectorcallfunc call = nullptr) {
        PyObject* const self = type->tp_alloc(type, 0);
        if (!self) throw py::error_already_set();
        as<Box>(self).object = object.release();
        as<Box>(self).call = call;
        return py::reinterpret_steal<py::object>(self);
    }
    static Object& of(PyObject* self) { return *as<Box>(self).object; }
    /// Raises TypeError where it is something else.
    static Object& checked(py::handle given) {
        if (!PyObject_TypeCheck(given.ptr(), type))
            throw py::type_error(std::string("expected ") + type->tp_name + ", got " +
                                 Py_TYPE(given.ptr())->tp_name);
        return of(given.ptr());
    }

private:
    static int traverse(PyObject* self, visitproc visit, void* arg) {
        Py_VISIT(Py_TYPE(self));
        return as<Box>(self).object ? of(self).traverse(visit, arg) : 0;
    }
    static int clear(PyObject* self) {
        if constexpr (requires(Object& object) { object.clear(); })
            if (as<Box>(self).object) of(self).clear();
        return 0;
    }
    static void free(PyObject* self) {
        PyObject_GC_UnTrack(self);
        delete as<Box>(self).object;
        free_memory(self);
    }
};

}  // namespace instep::bindings
