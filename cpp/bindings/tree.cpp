#include "bindings/tree.h"

#include <algorithm>

#include <utility>

#include "bindings/arrays.h"

namespace instep::bindings {
namespace {

constexpr int deepest = 200;

std::string quoted(py::handle key) {
    return py::repr(key);
}

py::object sorted_keys(const py::object& dict, const std::string& path) {
    try {
        return py::module_::import("builtins").attr("sorted")(dict);
    } catch (py::error_already_set& error) {
        if (!error.matches(PyExc_TypeError)) throw;
        throw py::type_error(path + ": expected keys that can be sorted, got keys of mixed types");
    }
}

/// The items of a list or tuple, borrowed.
PyObject** items(py::handle sequence) {
    return PySequence_Fast_ITEMS(sequence.ptr());
}

/// The value under a key of a dict, borrowed; null where there is none.
py::handle value(py::handle dict, py::handle key) {
    PyObject* const found = PyDict_GetItemWithError(dict.ptr(), key.ptr());
    if (!found && PyErr_Occurred()) throw py::error_already_set();
    return found;
}

std::size_t length(py::handle container) {
    return static_cast<std::size_t>(PyDict_Check(container.ptr()) ? PyDict_GET_SIZE(container.ptr())
                                                                  : Py_SIZE(container.ptr()));
}

}  // namespace

Tree::Tree(const py::object& params, const py::object& group_type)
    : root_(build(params, "params", py::tuple(), group_type, 0)) {}

Tree::Node Tree::build(const py::object& object, const std::string& path, const py::tuple& around,
                       const py::object& group_type, int depth) {
    if (depth > deepest) throw py::value_error(path + ": nested too deeply");
    Node node{Kind::leaf, object, path, leaves.size(), false, {}, {}};
    const auto add = [&](py::handle child, const std::string& child_path, const py::tuple& inside) {
        node.children.push_back(build(py::reinterpret_borrow<py::object>(child), child_path, inside,
                                      group_type, depth + 1));
    };
    if (py::isinstance(object, group_type)) {
        node.kind = Kind::group;
        add(object.attr("params"), path, py::tuple(around + py::make_tuple(object)));
    } else if (PyDict_Check(object.ptr())) {
        node.kind = Kind::dict;
        for (const py::handle key : sorted_keys(object, path)) {
            node.keys.push_back(py::reinterpret_borrow<py::object>(key));
            add(value(object, key), path + "[" + quoted(key) + "]", around);
        }
    } else if (PyList_Check(object.ptr()) || PyTuple_Check(object.ptr())) {
        node.kind = PyList_Check(object.ptr()) ? Kind::list : Kind::tuple;
        for (std::size_t k = 0; k < length(object); ++k)
            add(items(object)[k], path + "[" + std::to_string(k) + "]", around);
        node.is_flat = std::all_of(node.children.begin(), node.children.end(),
                                   [](const Node& child) { return child.kind == Kind::leaf; });
    } else {
        check_parameter(object, Name(path));
        leaves.push_back(object);
        paths.push_back(path);
        groups.push_back(around);
    }
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
    if (a.kind != b.kind && !(is_sequence(a) && is_sequence(b))) return false;
    if (a.children.size() != b.children.size()) return false;
    for (std::size_t k = 0; k < a.keys.size(); ++k)
        if (!a.keys[k].equal(b.keys[k])) return false;
    for (std::size_t k = 0; k < a.children.size(); ++k)
        if (!same_structure(a.children[k], b.children[k])) return false;
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
    return node.kind == Kind::list ? py::object(result) : py::tuple(result);
}

void Tree::check_unchanged() const {
    check_unchanged(root_);
}

void Tree::check_unchanged(const Node& node) const {
    if (node.kind == Kind::leaf) return;
    if (node.kind != Kind::group && length(node.object) != node.children.size())
        throw py::value_error(node.path + ": expected the " + std::to_string(node.children.size()) +
                              " items that were bound, got " + std::to_string(length(node.object)) +
                              "; bind again with build");
    const auto same = [](PyObject* now, const py::object& bound) { return now == bound.ptr(); };
    if (node.is_flat &&
        std::equal(items(node.object), items(node.object) + node.children.size(),
                   leaves.begin() + static_cast<std::ptrdiff_t>(node.first_leaf), same))
        return;
    for (std::size_t k = 0; k < node.children.size(); ++k) {
        const Node& child = node.children[k];
        py::object member;  // of a group
        py::handle now;
        if (node.kind == Kind::group)
            now = member = node.object.attr("params");
        else
            now = node.kind == Kind::dict ? value(node.object, node.keys[k])
                                          : py::handle(items(node.object)[k]);
        if (now.ptr() != child.object.ptr())
            throw py::value_error(
                child.path + ": expected the object that was bound, got " +
                (now ? "another one (" + description(now) + ")" : "nothing under its key") +
                "; update arrays in place (w -= ..., w[...] = ...) or bind again with build");
        check_unchanged(child);
    }
}

void Tree::match(py::handle gradients, std::vector<py::handle>& found) const {
    found.clear();
    match(root_, gradients, found);
}

void Tree::match(const Node& node, py::handle gradients, std::vector<py::handle>& found) {
    const auto refuse = [&](const std::string& expected) {
        throw py::type_error("gradients for " + node.path + ": expected " + expected + ", got " +
                             description(gradients));
    };
    switch (node.kind) {
        case Kind::leaf:
            found.push_back(gradients);
            return;
        case Kind::group:
            return match(node.children[0], gradients, found);
        case Kind::dict: {
            if (!PyDict_Check(gradients.ptr())) refuse("a dict");
            for (std::size_t k = 0; k < node.keys.size(); ++k) {
                const py::handle under_key = value(gradients, node.keys[k]);
                if (!under_key)
                    throw py::value_error("gradient for " + node.children[k].path +
                                          ": expected an array or None, got no such key");
                match(node.children[k], under_key, found);
            }
            if (length(gradients) != node.keys.size())
                for (const auto& [key, ignored] : py::reinterpret_borrow<py::dict>(gradients))
                    if (!value(node.object, key))
                        throw py::value_error("gradients for " + node.path + ": got the key " +
                                              quoted(key) + ", which the parameters don't have");
            return;
        }
        case Kind::list:
        case Kind::tuple:
            if (!PyList_Check(gradients.ptr()) && !PyTuple_Check(gradients.ptr()))
                refuse("a list or tuple of " + std::to_string(node.children.size()));
            if (length(gradients) != node.children.size())
                throw py::value_error("gradients for " + node.path + ": expected " +
                                      std::to_string(node.children.size()) + " items, got " +
                                      std::to_string(length(gradients)));
            if (node.is_flat) {
                found.insert(found.end(), items(gradients), items(gradients) + length(gradients));
                return;
            }
            for (std::size_t k = 0; k < node.children.size(); ++k)
                match(node.children[k], items(gradients)[k], found);
    }
}

}  // namespace instep::bindings
