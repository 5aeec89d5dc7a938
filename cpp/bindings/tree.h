// Nested lists, tuples and dicts of arrays: their leaves, paths and groups, and whether they still
// are what they were.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

namespace instep::bindings {

namespace py = pybind11;

class Tree {
public:
    /// Walks `params`, dicts in sorted key order. Objects of `group_type` stand for the sub-tree in
    /// their attribute `params`. Where `ignore`, if it is not None, is true of a path and what is
    /// no container, that stays out of it. Raises TypeError or ValueError where something else is
    /// found, or an array that can't be updated in place, but for `writable`.
    Tree(const py::object& params, const py::object& group_type, const py::object& ignore,
         bool writable = true);

    std::vector<py::object> leaves;   ///< arrays of NumPy's
    std::vector<py::object> objects;  ///< what stands in their places: those, or other libraries'
    std::vector<std::string> paths;   ///< of the leaves, such as "params['encoder'][2]"
    std::vector<py::tuple> groups;    ///< around each leaf, outermost first

    /// Whether the other one has the same containers, keys and number of leaves; groups don't
    /// count, and list and tuple are the same.
    bool same_structure(const Tree& other) const;
    /// The tree of a structure just like this one, of other arrays; nothing where it is not, or one
    /// of them has groups.
    std::optional<Tree> moved(const py::object& params) const;
    /// What was walked.
    const py::object& params() const { return root_.object; }
    /// The structure without groups, with these objects as leaves; named tuples stay such.
    py::object unflatten(const py::list& values) const;
    /// Raises ValueError where a container holds something else than when the tree was made.
    void check_unchanged() const;
    /// The leaves of a structure like this one, where list and tuple count as the same. Raises
    /// TypeError or ValueError where it differs. `lenient`: there is None for leaves of what is
    /// left out, keys or whole sub-trees. `what` messages call a leaf, in the singular.
    void match(py::handle given, bool lenient, std::vector<py::object>& leaves,
               const char* what = "gradient") const;
    /// The same for a structure of gradients, with arrays of NumPy's in the place of other
    /// libraries' and of numbers; raises for what cannot be read as its parameter's.
    std::vector<py::object> gradients(py::handle given, bool lenient) const;
    /// The ids of rows in such a structure, where there are any: ascending, each once.
    std::vector<py::object> ids(py::handle given) const;
    /// For Python's garbage collector: containers, groups and arrays may refer to what refers here.
    int traverse(visitproc visit, void* arg) const;

private:
    enum class Kind { leaf, list, tuple, dict, group, ignored };
    struct Node {
        Kind kind;
        py::object object;
        std::string path;
        std::size_t first_leaf;        ///< index into `leaves` of the first one in it
        bool is_flat;                  ///< a list or tuple of nothing but leaves
        std::vector<py::object> keys;  ///< of a dict, in the order of the children
        std::vector<Node> children;
    };

    /// What is the same all over a walk.
    struct Walk {
        py::object group_type, ignore;
        bool writable;
    };
    Node build(const py::object& object, const std::string& path, const py::tuple& around,
               const Walk& walk, int depth);
    Node build_leaf(const py::object& object, const std::string& path, const py::tuple& around,
                    const Walk& walk);
    static bool same_structure(const Node& a, const Node& b);
    /// Makes the objects in a sub-tree those in another one; false where that is not like it.
    static bool move(Node& node, const py::object& object, std::vector<py::object>& leaves);
    py::object unflatten(const Node& node, const py::list& values, std::size_t& next) const;
    void check_unchanged(const Node& node) const;
    void check_memory(const Node& leaf) const;
    /// Whether a flat list or tuple holds what was bound.
    bool holds_its_leaves(const Node& node) const;
    static int traverse(const Node& node, visitproc visit, void* arg);
    static void match(const Node& node, py::object given, bool lenient,
                      std::vector<py::object>& found, const std::string& what);

    Node root_;
};

}  // namespace instep::bindings
