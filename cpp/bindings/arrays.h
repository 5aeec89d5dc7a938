// NumPy arrays as the engine's streams, and every error message about one array.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/stream.h"

namespace instep::bindings {

namespace py = pybind11;

/// The memory between an array's first and last byte.
struct Bounds {
    std::uintptr_t low, high;
};

/// The fields of an ndarray, without a copy and without counting references.
class View {
public:
    explicit View(py::handle array) : fields_(py::detail::array_proxy(array.ptr())) {}

    char* data() const { return fields_->data; }
    int ndim() const { return fields_->nd; }
    py::ssize_t extent(int axis) const { return fields_->dimensions[axis]; }
    py::ssize_t stride(int axis) const { return fields_->strides[axis]; }
    bool has_flag(int flag) const { return (fields_->flags & flag) != 0; }
    bool is_native() const;
    /// How its elements are stored; nothing for what kernels can't read.
    std::optional<Format> stored() const;
    Format format() const { return *stored(); }
    /// The bytes of an element, whatever it is.
    std::size_t item() const;
    std::size_t size() const;
    bool same_shape(const View& other) const;
    bool same_format(const View& other) const { return stored() == other.stored(); }
    /// Whether the dtypes are of one type, whatever their byte order.
    bool same_type(const View& other) const;
    bool same_dtype(const View& other) const { return fields_->descr == other.fields_->descr; }
    Bounds bounds() const;

private:
    friend class Snapshot;
    const py::detail::PyArray_Proxy* fields_;
};

/// An array's fields at one time. Its comparisons are made for every array in every step: they look
/// at fields directly, and say no where a closer look is needed.
class Snapshot {
public:
    explicit Snapshot(const View& array);

    /// Whether the array still is what it was.
    bool is_current() const {
        return fields_->data == data_ && fields_->flags == flags_ && has_layout_of(fields_);
    }
    /// Whether an array is laid out as this one, in other memory.
    bool is_like(const View& other) const;
    /// Takes such an array's place.
    void move(const View& other);
    /// Whether the other array is C-contiguous as this one, of the same shape and dtype, and within
    /// these bounds.
    bool matches(py::handle other, const Bounds& within) const;
    Format format() const { return format_; }
    /// Fetches the array's fields into the cache.
    void fetch() const;

private:
    bool has_layout_of(const py::detail::PyArray_Proxy* fields) const {
        if (fields->descr != descr_.ptr() || fields->nd != ndim_) return false;
        const py::ssize_t* const extents = layout();
        const py::ssize_t* const strides = extents + ndim_;
        for (int axis = 0; axis < ndim_; ++axis)
            if (fields->dimensions[axis] != extents[axis] || fields->strides[axis] != strides[axis])
                return false;
        return true;
    }
    /// The extents, then the strides.
    const py::ssize_t* layout() const { return ndim_ <= few ? layout_of_few_ : layout_.data(); }

    static constexpr int few = 3;

    const py::detail::PyArray_Proxy* fields_;
    const char* data_;
    py::object descr_;  ///< kept, so that no other one gets its address
    int ndim_, flags_;
    Format format_;
    std::uintptr_t bytes_;
    py::ssize_t layout_of_few_[2 * few];  ///< beside the rest in the cache
    std::vector<py::ssize_t> layout_;     ///< of more axes than those
};

/// Fetches into the cache an object's own memory, and what an array has elsewhere.
void fetch_object(py::handle object);
void fetch_axes(py::handle object);

/// What an array is called in messages: "params['w']", "m of params['w']". Put together only when a
/// message is made.
struct Name {
    const char* role;
    const char* link;
    const std::string* path;

    explicit Name(const std::string& of) : Name("", "", of) {}
    Name(const char* its_role, const char* its_link, const std::string& of)
        : role(its_role), link(its_link), path(&of) {}
    std::string str() const { return std::string(role) + link + *path; }
    friend std::string operator+(const Name& name, const std::string& text) {
        return name.str() + text;
    }
};

/// Finds what is needed of NumPy, when the module is loaded: a function's own static would be found
/// while a thread that holds Python's lock waits for one that wants it.
void know_numpy();

/// Whether the object is a Python or NumPy number that can be the gradient of a 0-d array.
bool is_number(py::handle object);
/// Whether it is one of the types that numbers mostly have, whose value nobody's code decides on.
bool is_plain_number(py::handle object);

/// Whether the object is an ndarray, or of a subclass that works like one in place.
bool is_array(py::handle object);
/// Whether an object is an array of NumPy's, of whatever kind, or one of its scalars.
bool is_of_numpy(py::handle object);

/// Whether it is an ndarray of a native dtype that kernels compute in, aligned, C-contiguous, and
/// writable where it must be.
bool is_simple(py::handle object, bool writable);

/// How one of a parameter's arrays is kept.
struct Kept {
    Format format;
    Coding coding = Coding::none;

    /// The name of its dtype.
    const char* dtype() const;
};

/// That of a format or coding of this name.
Kept kept_as(const std::string& name);

/// Raises TypeError for what is no array.
void check_array(py::handle object, const Name& name);
/// Raises TypeError or ValueError, in that name, for an array that cannot be updated in
/// place.
void check_parameter(py::handle object, const Name& name, bool writable = true);
/// The same for a state array of that parameter.
void check_state(py::handle object, const View& param, const Kept& kept, const Name& name);
/// The same for one that may have another shape.
void check_statistics(py::handle object, const View& param, const Kept& kept, const Name& name);
/// The same for one that has these axes of the parameter's.
void check_part(py::handle object, const View& param, const std::vector<int>& axes,
                const Kept& kept, const Name& name);
/// The same for what the parameter's coding keeps beside a state array, or beside it.
void check_companion(py::handle object, const View& param, Coding coding, const Name& name);
/// The same for the 0-d float64 array that holds one number of a whole parameter.
void check_scalar(py::handle object, const Name& name);
/// Raises for an array whose numbers kernels cannot read, whatever its shape.
void check_values(py::handle object, const Name& name);
/// Raises for an array that cannot be read as the gradient of that parameter.
void check_gradient(py::handle object, const View& param, const Name& name);

/// The order in which a parameter's elements are visited: that of its memory, or of the memory
/// where it was before, as sums depend on it.
struct Order {
    std::vector<int> axes;  ///< of more than one element, outermost first
    Shape shape;            ///< their extents
    bool c_contiguous;      ///< the array is, and visited like that

    explicit Order(const View& param);
    /// Raises ValueError for what are not the array's axes of more than one element.
    Order(const View& param, std::vector<int> given);
    /// The array in that order; strides go to `storage`, which must outlive the stream.
    Stream stream(const View& array, std::vector<std::ptrdiff_t>& storage) const;
    /// Between neighbours along each axis in C order; empty where they are visited in it.
    std::vector<std::ptrdiff_t> steps(const View& param) const;
};

/// Whether it is an array of a native dtype that kernels can read, aligned, and writable where it
/// must be.
bool is_usable(py::handle object, bool writable);

/// "float32 array of shape (3, 4)".
std::string description(py::handle object);

}  // namespace instep::bindings
