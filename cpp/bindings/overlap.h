// Which memory belongs to parameters and state, so that nothing else is written or read with it.
#pragma once

#include <vector>

#include "bindings/arrays.h"

namespace instep::bindings {

class Memory {
public:
    /// Notes an array; it and the path in its name must outlive this object.
    void add(py::handle array, const Name& name);
    /// After the last `add`: raises ValueError where two of the arrays share bytes.
    void check_disjoint();
    /// Raises ValueError where the array shares bytes with one of those noted. Returns the free
    /// space that it lies in; an empty one where its bounds alone don't tell that it is apart.
    Bounds check_apart(py::handle array, const Bounds& bounds, const Name& name) const;

private:
    struct Range {
        Bounds bounds;
        py::handle array;
        Name name;
        std::uintptr_t highest = 0;  ///< of this range and those before it
    };
    std::vector<Range> ranges_;  ///< by their low ends
};

}  // namespace instep::bindings
