#include "bindings/foreign.h"

#include "bindings/unlocked.h"

namespace instep::bindings {
namespace {

py::object seen_as(const char* what, py::handle object, const Name& name) {
    const py::object function = py::module_::import("instep._foreign").attr(what);
    return call(function, object, py::str(name.str()));
}

}  // namespace

bool is_foreign(py::handle object) {
    if (object.is_none() || is_number(object) || is_of_numpy(object)) return false;
    const auto type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
    return PyObject_HasAttrString(type, "__dlpack__") == 1 ||
           PyObject_HasAttrString(type, "__array__") == 1;
}

py::object foreign_gradient(py::handle object, const Name& name) {
    return seen_as("gradient", object, name);
}

py::object foreign_parameter(py::handle object, const Name& name) {
    return seen_as("parameter", object, name);
}

}  // namespace instep::bindings
