#include "bindings/stepper.h"

#include <pybind11/critical_section.h>
#include <pybind11/stl.h>

#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bound.h"
#include "bindings/box.h"
#include "bindings/busy.h"
#include "engine/fork.h"

namespace instep::bindings {
namespace {

struct Stepper {
    PyObject_HEAD;
    PyObject* values;
    PyObject* binding;
    PyObject* core;  ///< of the binding
    Busy busy;
};

PyTypeObject* stepper_type;

/// Raises TypeError where it is something else.
PyObject* checked(py::handle given) {
    if (!PyObject_TypeCheck(given.ptr(), stepper_type))
        throw py::type_error(std::string("expected an optimizer, got ") +
                             Py_TYPE(given.ptr())->tp_name);
    return given.ptr();
}

/// What a dict of hyperparameters has under a name.
py::object found_in(const py::object& values, py::handle name) {
    PyObject* const found = values ? PyDict_GetItemWithError(values.ptr(), name.ptr()) : nullptr;
    if (found) return py::reinterpret_borrow<py::object>(found);
    if (!PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, name.ptr());
    throw py::error_already_set();
}

PyObject* new_stepper(PyTypeObject* type, PyObject*, PyObject*) {
    PyObject* const self = type->tp_alloc(type, 0);
    if (self) new (&as<Stepper>(self).busy) Busy();
    return self;
}

/// One of its objects, or null; kept, whatever other threads and user code make of the stepper.
template <PyObject* Stepper::* member>
py::object held_by(PyObject* self) {
    const py::scoped_critical_section alone{py::handle(self)};
    return py::reinterpret_borrow<py::object>(as<Stepper>(self).*member);
}

/// The same as an attribute, None for null.
template <PyObject* Stepper::* member>
PyObject* get(PyObject* self, void*) {
    py::object object = held_by<member>(self);
    return (object ? std::move(object) : py::none()).release().ptr();
}

py::object core_of(PyObject* self) {
    return held_by<&Stepper::core>(self);
}

/// A binding, not yet that of a stepper.
struct Offer {
    py::object binding, core;
    Bound* bound = nullptr;
    Configuration told;

    explicit Offer(py::handle object) : binding(py::reinterpret_borrow<py::object>(object)) {
        if (binding.is_none()) return;
        core = binding.attr("core");
        bound = &Box<Bound>::checked(core);
        told = bound->configuration(binding.attr("configuration"));
    }
};

void swap(PyObject*& here, py::object& there) noexcept {
    PyObject* const before = here;
    here = there.release().ptr();
    there = py::reinterpret_steal<py::object>(before);
}

/// Swaps hyperparameters and binding for the stepper's. What it had is in the arguments then, to be
/// given up when it can do no harm: that may run anything.
void swap(Stepper& stepper, py::object& values, Offer& offer) noexcept {
    swap(stepper.values, values);
    swap(stepper.binding, offer.binding);
    swap(stepper.core, offer.core);
}

PyObject* install(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    return guarded([&] {
        if (count != 2 && count != 4)
            throw py::type_error("_install: expected values, binding, copies, counters");
        auto values = py::reinterpret_borrow<py::object>(arguments[0]);
        Offer offer(arguments[1]);
        const Changes copies(count == 4 ? py::reinterpret_borrow<py::object>(arguments[2])
                                        : py::object(py::tuple()));
        Counters counters{};
        const bool counts = count == 4 && arguments[3] != Py_None;
        if (counts && !offer.bound) throw py::type_error("_install: counters are a binding's");
        if (counts)
            counters = offer.bound->counters_from(py::reinterpret_borrow<py::dict>(arguments[3]));
        {
            // From here on nothing fails, and nobody sees half of it: neither another thread, as
            // Python's lock is kept, nor a child, as forks wait.
            const py::scoped_critical_section alone{py::handle(self)};
            const InFlight in_flight;
            copies.write();
            if (counts) offer.bound->set_counters(std::move(counters));
            if (offer.bound) offer.bound->configure(offer.told);
            swap(as<Stepper>(self), values, offer);
        }
        return py::none();
    });
}

PyObject* move(PyObject* self, PyObject* params) {
    return guarded([&] {
        const py::object core = core_of(self);
        if (!core) return py::bool_(false);
        Bound& bound = Box<Bound>::of(core.ptr());
        std::optional<Move> others = bound.moved(py::reinterpret_borrow<py::object>(params));
        if (!others) return py::bool_(false);
        const py::scoped_critical_section alone{core};
        const InFlight in_flight;
        bound.move(*others);
        return py::bool_(true);
    });
}

/// An attribute that the class knows, or one that `_check_attribute` lets pass.
int set_attribute(PyObject* self, PyObject* name, PyObject* value) {
    if (value && !_PyType_Lookup(Py_TYPE(self), name)) {
        const int is_refused = succeeds([&] {
            result_of([&] { return PyObject_CallMethod(self, "_check_attribute", "O", name); });
        });
        if (is_refused) return -1;
    }
    return PyObject_GenericSetAttr(self, name, value);
}

/// A step by the thread at work.
void carry_out(Busy& busy, Bound& bound, py::handle gradients, bool lenient = false) {
    busy.set_asks(true);
    bound.ask_schedules();
    busy.set_asks(false);
    bound.step(gradients, lenient);
}

PyObject* swap_averages(PyObject* self, PyObject*) {
    return guarded([&] {
        const AtWork at_work(as<Stepper>(self).busy);
        if (const py::object core = core_of(self)) Box<Bound>::of(core.ptr()).swap_averages();
        return py::none();
    });
}

PyObject* check_not_swapped(PyObject* self, PyObject*) {
    return guarded([&] {
        if (const py::object core = core_of(self)) Box<Bound>::of(core.ptr()).check_not_swapped();
        return py::none();
    });
}

/// A step on arrays in the place of the parameters, which stay there or not.
PyObject* step_on(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    return guarded([&] {
        if (count != 3) throw py::type_error("_step_on: expected params, grads, stay");
        Stepper& stepper = as<Stepper>(self);
        const AtWork at_work(stepper.busy);
        const py::object core = core_of(self);
        if (!core) return py::bool_(false);
        Bound& bound = Box<Bound>::of(core.ptr());
        std::optional<Move> others = bound.moved(py::reinterpret_borrow<py::object>(arguments[0]));
        if (!others) return py::bool_(false);
        const bool stay = PyObject_IsTrue(arguments[2]) == 1;
        bound.settle();
        const auto exchange = [&] {
            const py::scoped_critical_section alone{core};
            const InFlight in_flight;
            bound.move(*others);
        };
        exchange();
        try {
            carry_out(stepper.busy, bound, arguments[1]);
            bound.settle();
        } catch (...) {
            exchange();
            throw;
        }
        if (!stay) exchange();
        return py::bool_(true);
    });
}

/// A step with gradients that a partner brings to be added up.
PyObject* step_on_sums(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    return guarded([&] {
        if (count != 4) throw py::type_error("_step_on_sums: expected formats, divisor, own, rows");
        Busy& busy = as<Stepper>(self).busy;
        const AtWork at_work(busy);
        const py::object core = core_of(self);
        if (!core) throw std::runtime_error("_step_on_sums: this optimizer has no parameters yet");
        Bound& bound = Box<Bound>::of(core.ptr());
        const auto formats =
            py::handle(arguments[0]).cast<std::vector<std::optional<std::string>>>();
        busy.set_asks(true);
        bound.ask_schedules();
        busy.set_asks(false);
        bound.step_on_sums(formats, py::handle(arguments[1]).cast<double>(),
                           py::handle(arguments[2]).cast<std::vector<std::vector<py::object>>>(),
                           py::handle(arguments[3]).cast<std::vector<py::object>>());
        return py::none();
    });
}

/// Lets an optimizer update with what an unfinished window holds.
struct Flushing {
    Bound& bound;
    explicit Flushing(Bound& its_bound) : bound(its_bound) { bound.set_flushing(true); }
    ~Flushing() { bound.set_flushing(false); }
};

PyObject* flush(PyObject* self, PyObject*) {
    return guarded([&] {
        Busy& busy = as<Stepper>(self).busy;
        const AtWork at_work(busy);
        const py::object core = core_of(self);
        if (!core)
            throw std::runtime_error(
                "flush: this optimizer has no parameters yet; call build(params)");
        Bound& bound = Box<Bound>::of(core.ptr());
        if (!bound.has_window()) return py::bool_(false);
        const Flushing flushing(bound);
        busy.set_asks(true);
        bound.ask_schedules();
        busy.set_asks(false);
        bound.flush();
        return py::bool_(true);
    });
}

PyObject* bind_and_step(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    return guarded([&] {
        if (count != 3) throw py::type_error("_bind_and_step: expected values, binding, grads");
        Stepper& stepper = as<Stepper>(self);
        const AtWork at_work(stepper.busy);
        auto values = py::reinterpret_borrow<py::object>(arguments[0]);
        Offer offer(arguments[1]);
        if (!offer.bound) throw py::type_error("_bind_and_step: expected a binding, got None");
        if (core_of(self)) throw std::runtime_error("another thread has bound this optimizer");
        if (held_by<&Stepper::values>(self).ptr() != values.ptr()) return py::bool_(false);
        offer.bound->configure(offer.told);
        const auto exchange = [&] {
            const py::scoped_critical_section alone{py::handle(self)};
            swap(stepper, values, offer);
        };
        const py::object core = offer.core;
        Bound& bound = *offer.bound;
        exchange();  // before the step: a fork right after it must find it bound
        try {
            carry_out(stepper.busy, bound, arguments[2]);
        } catch (...) {
            exchange();
            throw;
        }
        return py::bool_(true);
    });
}

/// Keeps others out of an optimizer while a `with` block runs.
struct Hold {
    PyObject_HEAD;
    PyObject* stepper;
    bool is_held;
};

PyTypeObject* hold_type;

void leave(Hold& hold) {
    if (std::exchange(hold.is_held, false)) as<Stepper>(hold.stepper).busy.unlock();
}

PyObject* enter_hold(PyObject* self, PyObject*) {
    return guarded([&] {
        PyObject* const stepper = as<Hold>(self).stepper;
        as<Stepper>(stepper).busy.lock();
        as<Hold>(self).is_held = true;
        if (const py::object core = core_of(stepper)) Box<Bound>::of(core.ptr()).settle();
        return py::none();
    });
}

PyObject* leave_hold(PyObject* self, PyObject* const*, Py_ssize_t) {
    leave(as<Hold>(self));
    return py::none().release().ptr();
}

/// An exception that comes between a block and its end must not leave the optimizer held.
void free_hold(PyObject* self) {
    leave(as<Hold>(self));
    Py_XDECREF(as<Hold>(self).stepper);
    free_memory(self);
}

PyObject* hold(PyObject* self, PyObject*) {
    PyObject* const made = hold_type->tp_alloc(hold_type, 0);
    if (made) as<Hold>(made).stepper = py::handle(self).inc_ref().ptr();
    return made;
}

PyTypeObject* make_hold_type() {
    static PyMethodDef methods[] = {
        {"__enter__", enter_hold, METH_NOARGS, nullptr},
        {"__exit__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(leave_hold)),
         METH_FASTCALL, nullptr},
        {nullptr, nullptr, 0, nullptr}};
    return make_type(
        "instep._core.Hold", sizeof(Hold), Py_TPFLAGS_DISALLOW_INSTANTIATION,
        {{Py_tp_methods, methods}, {Py_tp_dealloc, reinterpret_cast<void*>(free_hold)}});
}

PyObject* settle(PyObject* self, PyObject* ids) {
    return guarded([&] {
        const AtWork at_work(as<Stepper>(self).busy);
        if (const py::object core = core_of(self)) Box<Bound>::of(core.ptr()).settle(ids);
        return py::none();
    });
}

PyObject* behind(PyObject* self, PyObject*) {
    return guarded([&] {
        const AtWork at_work(as<Stepper>(self).busy);
        const py::object core = core_of(self);
        return py::cast(core ? Box<Bound>::of(core.ptr()).behind() : std::vector<std::size_t>());
    });
}

PyObject* refresh(PyObject* self, PyObject*) {
    return guarded([&] {
        Stepper& stepper = as<Stepper>(self);
        if (stepper.busy.is_mine()) return py::none();
        const AtWork at_work(stepper.busy);
        if (const py::object core = core_of(self)) Box<Bound>::of(core.ptr()).refresh();
        return py::none();
    });
}

/// The gradients among the arguments of `step`, and whether some may be missing.
PyObject* gradients_in(PyObject* const* arguments, Py_ssize_t count, PyObject* names,
                       bool& lenient) {
    if (count == 1 && !names) return arguments[0];
    PyObject* grads = count == 1 ? arguments[0] : nullptr;
    if (count > 1)
        throw py::type_error("step: expected one positional argument, the gradients, got " +
                             std::to_string(count));
    for (Py_ssize_t k = 0; names && k < PyTuple_GET_SIZE(names); ++k) {
        PyObject* const value = arguments[count + k];
        const std::string name = py::str(PyTuple_GET_ITEM(names, k));
        if (name == "grads" && !grads) {
            grads = value;
        } else if (name == "missing") {
            const bool is_text = PyUnicode_Check(value);
            lenient = is_text && PyUnicode_CompareWithASCIIString(value, "none") == 0;
            if (!lenient && (!is_text || PyUnicode_CompareWithASCIIString(value, "error") != 0))
                throw py::value_error("missing: expected \"error\" or \"none\", got " +
                                      representation_of(value));
        } else {
            throw py::type_error("step: expected the arguments grads and missing, got " + name);
        }
    }
    if (!grads) throw py::type_error("step: expected the gradients, got no argument");
    return grads;
}

PyObject* step(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
    return guarded([&] {
        bool lenient = false;
        PyObject* const grads = gradients_in(arguments, count, names, lenient);
        Stepper& stepper = as<Stepper>(self);
        const AtWork at_work(stepper.busy);
        const py::object core = core_of(self);
        if (!core)
            throw std::runtime_error(
                "step: this optimizer has no parameters yet; call build(params)");
        carry_out(stepper.busy, Box<Bound>::of(core.ptr()), grads, lenient);
        return py::none();
    });
}

int traverse_stepper(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(as<Stepper>(self).values);
    Py_VISIT(as<Stepper>(self).binding);
    Py_VISIT(as<Stepper>(self).core);
    return 0;
}

int clear_stepper(PyObject* self) {
    Py_CLEAR(as<Stepper>(self).values);
    Py_CLEAR(as<Stepper>(self).binding);
    Py_CLEAR(as<Stepper>(self).core);
    return 0;
}

void free_stepper(PyObject* self) {
    PyObject_GC_UnTrack(self);
    clear_stepper(self);
    free_memory(self);
}

constexpr const char* flush_documentation = R"(flush($self)
--

Update with the mean of what an unfinished accumulation window holds, and begin a new one.

Returns
-------
bool
    Whether there was such a window. If not, nothing has changed.

Raises
------
RuntimeError, TypeError, ValueError
    As for `step`.
)";

constexpr const char* step_documentation = R"(step($self, grads, *, missing='error')
--

Update all parameters and their state in place.

Parameters
----------
grads : ndarray or nesting of list, tuple and dict
    The gradients, in the structure of the parameters (list and tuple count as the same).
    float16, bfloat16, float32 or float64, whatever the parameter's dtype; of the parameter's
    shape, any strides; a float will do for a 0-d parameter. None for an array means that it has
    no gradient in this step.
missing : {"error", "none"}, optional
    Whether keys that are left out, and None for a whole sub-tree, are errors, or mean that the
    arrays there have no gradient.

Raises
------
RuntimeError
    If the optimizer is unbound, or this very thread is in the middle of a step; others wait for
    one another, though not for longer than a second for a schedule.
TypeError, ValueError
    If anything is wrong with a gradient, a parameter or the answer of a schedule. The
    message names the parameter by its path. Nothing has changed then.
)";

PyTypeObject* make_stepper_type() {
    static PyMethodDef methods[] = {
        {"step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(step)),
         METH_FASTCALL | METH_KEYWORDS, step_documentation},
        {"flush", flush, METH_NOARGS, flush_documentation},
        {"_install", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(install)),
         METH_FASTCALL,
         "_install(values, binding, copies=(), counters=None): the only way to change what an\n"
         "optimizer is: all of it at once, arrays (pairs of to and from) and counters of the\n"
         "binding included. What can fail comes first, and no Python code runs in between."},
        {"_bind_and_step",
         reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(bind_and_step)), METH_FASTCALL,
         "_bind_and_step(values, binding, grads): a step that binds the optimizer if it succeeds.\n"
         "False, and nothing happened, where the hyperparameters are not those values any more."},
        {"_move", move, METH_O,
         "_move(params): binds other arrays in place of those that are bound, where they are laid\n"
         "out alike in the same structure; False, and nothing happened, where they are not."},
        {"_swap_averages", swap_averages, METH_NOARGS,
         "_swap_averages(): exchanges parameters and averages."},
        {"_check_not_swapped", check_not_swapped, METH_NOARGS,
         "_check_not_swapped(): raises RuntimeError where they are exchanged."},
        {"_step_on", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(step_on)),
         METH_FASTCALL,
         "_step_on(params, grads, stay): a step on other arrays, laid out as those that are "
         "bound,\n"
         "which stay bound afterwards or not; False, and nothing happened, where they are not."},
        {"_step_on_sums", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(step_on_sums)),
         METH_FASTCALL,
         "_step_on_sums(formats, divisor, own, rows): a step with gradients that a partner "
         "brings,\n"
         "in these formats, None for one that there is not; or that are among one's own, for each\n"
         "of which there is a list of arrays; or that are Rows. Their sums are divided."},
        {"_settle", settle, METH_O,
         "_settle(ids): lets rows that ids name have the updates that they have missed."},
        {"_behind", behind, METH_NOARGS,
         "_behind(): the parameters of which rows wait for updates."},
        {"_refresh", refresh, METH_NOARGS,
         "_refresh(): before the first update, makes copies of parameters anew; not in a step."},
        {"_hold", hold, METH_NOARGS,
         "_hold(): for a with block that changes the optimizer, or must see it unchanged."},
        {nullptr, nullptr, 0, nullptr}};
    static PyGetSetDef attributes[] = {
        {"_values", get<&Stepper::values>, nullptr, "The hyperparameters in force.", nullptr},
        {"_binding", get<&Stepper::binding>, nullptr, "What it is bound to, or None.", nullptr},
        {nullptr, nullptr, nullptr, nullptr, nullptr}};
    return make_type("instep._core.Stepper", sizeof(Stepper),
                     Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                     {{Py_tp_new, reinterpret_cast<void*>(new_stepper)},
                      {Py_tp_methods, methods},
                      {Py_tp_getset, attributes},
                      {Py_tp_setattro, reinterpret_cast<void*>(set_attribute)},
                      {Py_tp_traverse, reinterpret_cast<void*>(traverse_stepper)},
                      {Py_tp_clear, reinterpret_cast<void*>(clear_stepper)},
                      {Py_tp_dealloc, reinterpret_cast<void*>(free_stepper)}});
}

}  // namespace

py::object hyperparameter(py::handle stepper, py::handle name) {
    const py::object values = held_by<&Stepper::values>(checked(stepper));
    return found_in(values, name);
}

bool change_number(py::handle stepper, py::handle name, double number, bool is_whole) {
    PyObject* const self = checked(stepper);
    const AtWork at_work(as<Stepper>(self).busy);
    const py::object core = core_of(self), before = held_by<&Stepper::values>(self);
    if (!core) return false;
    Bound& bound = Box<Bound>::of(core.ptr());
    if (!bound.is_free(name, found_in(before, name), number)) return false;
    // Those who look at the hyperparameters meanwhile have the old ones, all of them.
    auto values = py::reinterpret_steal<py::object>(PyDict_Copy(before.ptr()));
    const py::object value =
        is_whole ? py::object(py::int_(static_cast<std::int64_t>(number))) : py::float_(number);
    if (!values || PyDict_SetItem(values.ptr(), name.ptr(), value.ptr()) < 0)
        throw py::error_already_set();
    const py::scoped_critical_section alone{py::handle(self)};
    const InFlight in_flight;
    bound.set_number(name, number);
    swap(as<Stepper>(self).values, values);
    return true;
}

void add_stepper(py::module_& module) {
    hold_type = make_hold_type();
    stepper_type = make_stepper_type();
    module.attr("Stepper") = py::handle(reinterpret_cast<PyObject*>(stepper_type));
}

}  // namespace instep::bindings
