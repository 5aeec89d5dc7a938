#include "bindings/tree.h"

#include <pybind11/critical_section.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/foreign.h"
#include "bindings/row_gradients.h"
#include "bindings/unlocked.h"

namespace instep::bindings {
namespace {

constexpr int deepest = 200;

py::object sorted_keys(const py::object& dict, const std::string& path) {
    try {
        return call(py::module_::import("builtins").attr("sorted"), dict);
    } catch (py::error_already_set& error) {
        if (!error.matches(PyExc_TypeError)) throw;
        throw py::type_error(path + ": expected keys that can be sorted, got keys of mixed types");
    }
}

std::size_t length(py::handle container) {
    return static_cast<std::size_t>(PyDict_Check(container.ptr()) ? PyDict_GET_SIZE(container.ptr())
                                                                  : Py_SIZE(container.ptr()));
}

/// The items of a list or tuple, borrowed: for as long as nobody else can change it.
PyObject** items(py::handle sequence) {
    return PySequence_Fast_ITEMS(sequence.ptr());
}

/// One of them. Other code may have run since its length was looked at: methods of keys, threads.
py::object item(py::handle sequence, std::size_t k) {
    const py::scoped_critical_section alone(sequence);
    if (k >= length(sequence))
        throw py::value_error(
            "expected a structure that stays as it is, got a sequence that "
            "became shorter");
    return py::reinterpret_borrow<py::object>(items(sequence)[k]);
}

/// Appends all of them, if there still are so many.
bool take_items(py::handle sequence, std::size_t count, std::vector<py::object>& to) {
    const py::scoped_critical_section alone(sequence);
    if (length(sequence) != count) return false;
    PyObject* const* const each = items(sequence);
    for (std::size_t k = 0; k < count; ++k)
        to.push_back(py::reinterpret_borrow<py::object>(each[k]));
    return true;
}

bool equal(const py::object& a, const py::object& b) {
    const int result = outlive([&] { return PyObject_RichCompareBool(a.ptr(), b.ptr(), Py_EQ); });
    if (result < 0) throw py::error_already_set();
    return result != 0;
}

/// The array or sub-tree in a group.
py::object params_of(const py::object& group) {
    return result_of([&] { return PyObject_GetAttrString(group.ptr(), "params"); });
}

/// The value under a key of a dict; null where there is none.
py::object value(py::handle dict, py::handle key) {
#if PY_VERSION_HEX >= 0x030d0000
    PyObject* found = nullptr;
    if (outlive([&] { return PyDict_GetItemRef(dict.ptr(), key.ptr(), &found); }) < 0)
        throw py::error_already_set();
    return py::reinterpret_steal<py::object>(found);
#else
    PyObject* const found = outlive([&] { return PyDict_GetItemWithError(dict.ptr(), key.ptr()); });
    if (!found && PyErr_Occurred()) throw py::error_already_set();
    return py::reinterpret_borrow<py::object>(found);
#endif
}

}  // namespace

Tree::Tree(const py::object& params, const py::object& group_type, const py::object& ignore,
           bool writable)
    : root_(build(params, "params", py::tuple(), {group_type, ignore, writable}, 0)) {
    std::unordered_set<std::string> known;
    for (const std::string& path : paths)
        if (!known.insert(path).second)
            throw py::value_error(path + ": expected keys that repr tells apart, got two alike");
}

Tree::Node Tree::build(const py::object& object, const std::string& path, const py::tuple& around,
                       const Walk& walk, int depth) {
    if (depth > deepest) throw py::value_error(path + ": nested too deeply");
    Node node{Kind::leaf, object, path, leaves.size(), false, {}, {}};
    const auto add = [&](const py::object& child, const std::string& child_path,
                         const py::tuple& inside) {
        node.children.push_back(build(child, child_path, inside, walk, depth + 1));
    };
    if (py::isinstance(object, walk.group_type)) {
        node.kind = Kind::group;
        add(params_of(object), path, py::tuple(around + py::make_tuple(object)));
    } else if (PyDict_Check(object.ptr())) {
        node.kind = Kind::dict;
        for (const py::handle key : sorted_keys(object, path)) {
            node.keys.push_back(py::reinterpret_borrow<py::object>(key));
            const py::object child = value(object, key);
            if (!child) throw py::value_error(path + ": expected a dict that stays as it is");
            add(child, path + "[" + representation_of(key) + "]", around);
        }
    } else if (PyList_Check(object.ptr()) || PyTuple_Check(object.ptr())) {
        node.kind = PyList_Check(object.ptr()) ? Kind::list : Kind::tuple;
        for (std::size_t k = 0; k < length(object); ++k)
            add(item(object, k), path + "[" + std::to_string(k) + "]", around);
        node.is_flat = std::all_of(node.children.begin(), node.children.end(),
                                   [](const Node& child) { return child.kind == Kind::leaf; });
    } else {
        return build_leaf(object, path, around, walk);
    }
    return node;
}

Tree::Node Tree::build_leaf(const py::object& object, const std::string& path,
                            const py::tuple& around, const Walk& walk) {
    Node node{Kind::leaf, object, path, leaves.size(), false, {}, {}};
    if (!walk.ignore.is_none()) {
        const py::object answer = call(walk.ignore, path, object);
        const int is_ignored = PyObject_IsTrue(answer.ptr());
        if (is_ignored < 0) throw py::error_already_set();
        if (is_ignored) {
            node.kind = Kind::ignored;
            return node;
        }
    }
    const Name name(path);
    const bool is_other = !is_array(object) && is_foreign(object);
    leaves.push_back(!is_other       ? object
                     : walk.writable ? foreign_parameter(object, name)
                                     : foreign_gradient(object, name));
    check_parameter(leaves.back(), name, walk.writable);
    objects.push_back(object);
    paths.push_back(path);
    groups.push_back(around);
    return node;
}

bool Tree::same_structure(const Tree& other) const {
    return same_structure(root_, other.root_);
}

bool Tree::same_structure(const Node& a, const Node& b) {
    if (a.kind == Kind::group) return same_structure(a.children[0], b);
    if (b.kind == Kind::group) return same_structure(a, b.children[0]);
    const auto is_sequence = [](const Node& node) {
        return node.kind == Kind::list || node.kind == Kind::tuple;
    };
    if (a.kind == Kind::ignored && b.kind == Kind::ignored) return true;
    if (a.kind != b.kind && !(is_sequence(a) && is_sequence(b))) return false;
    if (a.children.size() != b.children.size()) return false;
    for (std::size_t k = 0; k < a.keys.size(); ++k)
        if (!equal(a.keys[k], b.keys[k])) return false;
    for (std::size_t k = 0; k < a.children.size(); ++k)
        if (!same_structure(a.children[k], b.children[k])) return false;
    return true;
}

std::optional<Tree> Tree::moved(const py::object& params) const {
    Tree other = *this;
    other.leaves.clear();
    if (!move(other.root_, params, other.leaves)) return std::nullopt;
    other.objects = other.leaves;
    return other;
}

bool Tree::move(Node& node, const py::object& object, std::vector<py::object>& found) {
    const bool is_like = node.kind == Kind::leaf    ? is_array(object)
                         : node.kind == Kind::dict  ? PyDict_Check(object.ptr())
                         : node.kind == Kind::list  ? PyList_Check(object.ptr())
                         : node.kind == Kind::tuple ? PyTuple_Check(object.ptr())
                                                    : node.kind == Kind::ignored;
    if (!is_like) return false;
    node.object = object;
    if (node.kind == Kind::ignored) return true;
    if (node.kind == Kind::leaf) {
        found.push_back(object);
        return true;
    }
    if (length(object) != node.children.size()) return false;
    for (std::size_t k = 0; k < node.children.size(); ++k) {
        const py::object child =
            node.kind == Kind::dict ? value(object, node.keys[k]) : item(object, k);
        if (!child || !move(node.children[k], child, found)) return false;
    }
    return true;
}

py::object Tree::unflatten(const py::list& values) const {
    std::size_t next = 0;
    return unflatten(root_, values, next);
}

py::object Tree::unflatten(const Node& node, const py::list& values, std::size_t& next) const {
    switch (node.kind) {
        case Kind::leaf:
            return values[next++];
        case Kind::ignored:
            return node.object;
        case Kind::group:
            return unflatten(node.children[0], values, next);
        case Kind::dict: {
            py::dict result;
            for (std::size_t k = 0; k < node.keys.size(); ++k)
                result[node.keys[k]] = unflatten(node.children[k], values, next);
            return result;
        }
        case Kind::list:
        case Kind::tuple:
            break;
    }
    py::list result;
    for (const Node& child : node.children) result.append(unflatten(child, values, next));
    if (node.kind == Kind::list) return result;
    const py::object type = py::type::of(node.object);
    if (py::hasattr(type, "_make"))
        return call(py::object(type.attr("_make")), result);  // a named tuple
    return py::tuple(result);
}

void Tree::check_unchanged() const {
    check_unchanged(root_);
}

void Tree::check_unchanged(const Node& node) const {
    if (node.kind == Kind::ignored) return;
    if (node.kind == Kind::leaf) {
        if (!leaves[node.first_leaf].is(node.object)) check_memory(node);
        return;
    }
    if (node.kind != Kind::group && length(node.object) != node.children.size())
        throw py::value_error(node.path + ": expected the " + std::to_string(node.children.size()) +
                              " items that were bound, got " + std::to_string(length(node.object)) +
                              "; bind again with build");
    if (node.is_flat && holds_its_leaves(node)) return;
    for (std::size_t k = 0; k < node.children.size(); ++k) {
        const Node& child = node.children[k];
        py::object now;
        if (node.kind == Kind::group)
            now = params_of(node.object);
        else
            now = node.kind == Kind::dict ? value(node.object, node.keys[k]) : item(node.object, k);
        if (child.kind == Kind::ignored) continue;
        if (now.ptr() != child.object.ptr())
            throw py::value_error(
                child.path + ": expected the object that was bound, got " +
                (now ? "another one (" + description(now) + ")" : "nothing under its key") +
                "; update arrays in place (w -= ..., w[...] = ...) or bind again with build");
        check_unchanged(child);
    }
}

/// Another library may give an array other memory.
void Tree::check_memory(const Node& leaf) const {
    const py::object& array = leaves[leaf.first_leaf];
    const py::object now = foreign_parameter(leaf.object, Name(leaf.path));
    if (View(now).data() != View(array).data() || !View(now).same_shape(View(array)))
        throw py::value_error(leaf.path +
                              ": expected the array as it was bound, got one that was resized, "
                              "reshaped or moved since; bind again with build");
}

bool Tree::holds_its_leaves(const Node& node) const {
    const py::scoped_critical_section alone(node.object);
    const auto same = [](PyObject* now, const py::object& bound) { return now == bound.ptr(); };
    return length(node.object) == node.children.size() &&
           std::equal(items(node.object), items(node.object) + node.children.size(),
                      leaves.begin() + static_cast<std::ptrdiff_t>(node.first_leaf), same);
}

void Tree::match(py::handle given, bool lenient, std::vector<py::object>& found,
                 const char* what) const {
    found.clear();
    match(root_, py::reinterpret_borrow<py::object>(given), lenient, found, what);
}

void Tree::match(const Node& node, py::object given, bool lenient, std::vector<py::object>& found,
                 const std::string& what) {
    if (lenient && node.kind != Kind::leaf && given.is_none()) {
        for (const Node& child : node.children) match(child, py::none(), lenient, found, what);
        return;
    }
    const auto refuse = [&](const std::string& expected) {
        throw py::type_error(what + "s for " + node.path + ": expected " + expected + ", got " +
                             description(given));
    };
    switch (node.kind) {
        case Kind::leaf:
            found.push_back(std::move(given));
            return;
        case Kind::ignored:
            return;
        case Kind::group:
            return match(node.children[0], std::move(given), lenient, found, what);
        case Kind::dict: {
            if (!PyDict_Check(given.ptr())) refuse("a dict");
            std::size_t known = 0;
            for (std::size_t k = 0; k < node.keys.size(); ++k) {
                py::object under_key = value(given, node.keys[k]);
                if (under_key)
                    ++known;
                else if (lenient || node.children[k].kind == Kind::ignored)
                    under_key = py::none();
                else
                    throw py::value_error(what + " for " + node.children[k].path +
                                          ": expected an array or None, got no such key; with "
                                          "missing=\"none\" it has no gradient then");
                match(node.children[k], under_key, lenient, found, what);
            }
            if (length(given) != known)
                for (const py::handle key :
                     py::reinterpret_steal<py::list>(PyDict_Keys(given.ptr())))
                    if (!value(node.object, key))
                        throw py::value_error(what + "s for " + node.path + ": got the key " +
                                              representation_of(key) +
                                              ", which the parameters don't have");
            return;
        }
        case Kind::list:
        case Kind::tuple:
            if (!PyList_Check(given.ptr()) && !PyTuple_Check(given.ptr()))
                refuse("a list or tuple of " + std::to_string(node.children.size()));
            if (length(given) != node.children.size())
                throw py::value_error(what + "s for " + node.path + ": expected " +
                                      std::to_string(node.children.size()) + " items, got " +
                                      std::to_string(length(given)));
            if (node.is_flat && take_items(given, node.children.size(), found)) return;
            for (std::size_t k = 0; k < node.children.size(); ++k)
                match(node.children[k], item(given, k), lenient, found, what);
    }
}

std::vector<py::object> Tree::gradients(py::handle given, bool lenient) const {
    std::vector<py::object> found;
    match(given, lenient, found);
    for (std::size_t k = 0; k < found.size(); ++k) {
        py::object& gradient = found[k];
        if (gradient.is_none()) continue;
        const Name name("gradient", " for ", paths[k]);
        if (View(leaves[k]).ndim() == 0 && is_number(gradient)) {
            const auto number = gradient.cast<double>();
            gradient = py::array(py::dtype::of<double>(), std::vector<py::ssize_t>(), &number);
        }
        if (is_rows(gradient)) {
            check_rows(gradient, Table(View(leaves[k]), name), name);
            continue;
        }
        if (!is_array(gradient) && is_foreign(gradient))
            gradient = foreign_gradient(gradient, name);
        check_gradient(gradient, View(leaves[k]), name);
    }
    return found;
}

std::vector<py::object> Tree::ids(py::handle given) const {
    std::vector<py::object> found;
    match(given, true, found, "id");
    for (std::size_t k = 0; k < found.size(); ++k) {
        if (found[k].is_none()) continue;
        const Name name("ids", " for ", paths[k]);
        Rows rows;
        read_ids(found[k], Table(View(leaves[k]), name), name, rows);
        found[k] = py::cast(rows.ids());
    }
    return found;
}

int Tree::traverse(visitproc visit, void* arg) const {
    for (const py::object& leaf : leaves) Py_VISIT(leaf.ptr());
    for (const py::object& object : objects) Py_VISIT(object.ptr());
    for (const py::tuple& around : groups) Py_VISIT(around.ptr());
    return traverse(root_, visit, arg);
}

int Tree::traverse(const Node& node, visitproc visit, void* arg) {
    Py_VISIT(node.object.ptr());
    for (const py::object& key : node.keys) Py_VISIT(key.ptr());
    for (const Node& child : node.children)
        if (const int stop = traverse(child, visit, arg)) return stop;
    return 0;
}

}  // namespace instep::bindings
