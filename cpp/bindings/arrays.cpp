#include "bindings/arrays.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "bindings/unlocked.h"
#include "engine/fetch.h"

namespace instep::bindings {
namespace {

using py::detail::npy_api;

PyTypeObject* ndarray;
PyTypeObject *float32_number, *float64_number, *any_number;  ///< of scalars
/// NumPy's number for the dtype of each format; of those that come with another package, once one
/// of its arrays has been seen.
std::atomic<int> type_numbers[format_count];
constexpr int not_seen = -1;
PyObject* descriptors[format_count];  ///< native dtypes that kernels compute in; else null

int type_number(PyObject* descriptor) {
    return py::detail::array_descriptor_proxy(descriptor)->type_num;
}

/// Looks for a dtype of another package by its name.
std::optional<Format> find_format(PyObject* descriptor) {
    constexpr int first_of_others = 256;
    if (type_number(descriptor) < first_of_others) return std::nullopt;
    const std::string name = text_of(py::handle(descriptor).attr("name"));
    for (int k = 0; k < format_count; ++k) {
        if (type_numbers[k] != not_seen || name != formats[k].name) continue;
        type_numbers[k] = type_number(descriptor);
        return static_cast<Format>(k);
    }
    return std::nullopt;
}

/// "float32, float64, float16 or bfloat16".
std::string names_of_formats() {
    std::string text = formats[0].name;
    for (int k = 1; k < format_count; ++k)
        text += (k + 1 < format_count ? ", " : " or ") + std::string(formats[k].name);
    return text;
}

/// Whether an array of a subclass is masked.
bool is_masked(py::handle object) {
    // Nothing is before that module is loaded.
    const auto module =
        py::reinterpret_steal<py::object>(PyImport_GetModule(py::str("numpy.ma").ptr()));
    if (!module) return false;
    const py::object type = module.attr("MaskedArray");  // not isinstance, which asks the object
    return PyObject_TypeCheck(object.ptr(), reinterpret_cast<PyTypeObject*>(type.ptr())) != 0;
}

std::string text_of_shape(const std::vector<py::ssize_t>& shape) {
    std::string text = "(";
    for (const py::ssize_t extent : shape)
        text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
    return text + (shape.size() == 1 ? ",)" : ")");
}

std::string shape_of(const View& view) {
    std::vector<py::ssize_t> shape;
    for (int axis = 0; axis < view.ndim(); ++axis) shape.push_back(view.extent(axis));
    return text_of_shape(shape);
}

std::string dtype_of(py::handle array) {
    return text_of(array.attr("dtype"));
}

/// Elements of one array that share bytes with each other.
bool overlaps_itself(const View& view) {
    if (view.size() <= 1) return false;
    const Order order(view);
    std::ptrdiff_t span = static_cast<std::ptrdiff_t>(view.item());
    bool nested = true;
    for (std::size_t k = order.axes.size(); k-- > 0;) {
        const std::ptrdiff_t stride = std::abs(view.stride(order.axes[k]));
        nested &= stride >= span;
        span += stride * (order.shape.extents[k] - 1);
    }
    if (nested) return false;
    if (span < static_cast<std::ptrdiff_t>(view.size() * view.item())) return true;
    std::vector<std::ptrdiff_t> offsets{0};
    for (std::size_t k = 0; k < order.axes.size(); ++k) {
        const std::size_t count = offsets.size();
        for (std::ptrdiff_t i = 1; i < order.shape.extents[k]; ++i)
            for (std::size_t j = 0; j < count; ++j)
                offsets.push_back(offsets[j] + i * view.stride(order.axes[k]));
    }
    std::sort(offsets.begin(), offsets.end());
    const auto item = static_cast<std::ptrdiff_t>(view.item());
    for (std::size_t k = 1; k < offsets.size(); ++k)
        if (offsets[k] - offsets[k - 1] < item) return true;
    return false;
}

void check_is_array(py::handle object, const Name& name, const std::string& expected) {
    if (!is_array(object))
        throw py::type_error(name + ": expected " + expected + ", got " + description(object));
}

void check_dtype(py::handle object, const Name& name, const char* expected = nullptr) {
    const View view(object);
    if (!view.is_native())
        throw py::type_error(name + ": expected native byte order, got dtype " + dtype_of(object));
    if (expected ? dtype_of(object) != expected : !view.stored().has_value())
        throw py::type_error(name + ": expected dtype " +
                             (expected ? expected : names_of_formats()) + ", got " +
                             dtype_of(object) +
                             (!expected && dtype_of(object) == "uint16"
                                  ? "; of bfloat16's bits take array.view(ml_dtypes.bfloat16)"
                                  : ""));
    if (!view.has_flag(npy_api::NPY_ARRAY_ALIGNED_))
        throw py::value_error(name +
                              ": expected an aligned array, got one whose data begins at an "
                              "address that is not a multiple of its item size");
}

void check_shape(const View& given, const View& param, const Name& name) {
    if (!given.same_shape(param))
        throw py::value_error(name + ": expected shape " + shape_of(param) + ", got " +
                              shape_of(given));
}

void check_writable(const View& view, const Name& name) {
    if (!view.has_flag(npy_api::NPY_ARRAY_WRITEABLE_))
        throw py::value_error(name + ": expected an array to update in place, got a read-only one");
    if (overlaps_itself(view))
        throw py::value_error(name +
                              ": expected elements of their own memory each, got an array "
                              "whose strides make elements overlap");
}

}  // namespace

bool View::is_native() const {
    const char order = py::detail::array_descriptor_proxy(fields_->descr)->byteorder;
    return order == '=' || order == '|';
}

std::optional<Format> View::stored() const {
    const int type = type_number(fields_->descr);
    for (int k = 0; k < format_count; ++k)
        if (type_numbers[k] == type) return static_cast<Format>(k);
    return find_format(fields_->descr);
}

bool View::same_type(const View& other) const {
    return type_number(fields_->descr) == type_number(other.fields_->descr);
}

std::size_t View::item() const {
    const std::optional<Format> format = stored();
    if (format) return itemsize(*format);
    return static_cast<std::size_t>(py::reinterpret_borrow<py::dtype>(fields_->descr).itemsize());
}

std::size_t View::size() const {
    std::size_t product = 1;
    for (int axis = 0; axis < ndim(); ++axis) product *= static_cast<std::size_t>(extent(axis));
    return product;
}

bool View::same_shape(const View& other) const {
    return ndim() == other.ndim() &&
           std::equal(fields_->dimensions, fields_->dimensions + ndim(), other.fields_->dimensions);
}

Bounds View::bounds() const {
    const auto begin = reinterpret_cast<std::uintptr_t>(data());
    if (size() == 0) return {begin, begin};
    Bounds bounds{begin, begin + item()};
    for (int axis = 0; axis < ndim(); ++axis) {
        const py::ssize_t reach = (extent(axis) - 1) * stride(axis);
        (reach < 0 ? bounds.low : bounds.high) += static_cast<std::uintptr_t>(reach);
    }
    return bounds;
}

Snapshot::Snapshot(const View& array)
    : fields_(array.fields_),
      data_(array.data()),
      descr_(py::reinterpret_borrow<py::object>(fields_->descr)),
      ndim_(array.ndim()),
      flags_(fields_->flags),
      format_(array.format()),
      bytes_(array.size() * itemsize(format_)) {
    if (ndim_ > few) layout_.resize(2 * static_cast<std::size_t>(ndim_));
    py::ssize_t* const to = ndim_ > few ? layout_.data() : layout_of_few_;
    std::copy_n(fields_->strides, ndim_, std::copy_n(fields_->dimensions, ndim_, to));
}

bool Snapshot::is_like(const View& other) const {
    constexpr int of_layout = npy_api::NPY_ARRAY_C_CONTIGUOUS_ | npy_api::NPY_ARRAY_F_CONTIGUOUS_ |
                              npy_api::NPY_ARRAY_ALIGNED_ | npy_api::NPY_ARRAY_WRITEABLE_;
    return ((other.fields_->flags ^ flags_) & of_layout) == 0 && has_layout_of(other.fields_);
}

void Snapshot::move(const View& other) {
    fields_ = other.fields_;
    data_ = other.data();
    flags_ = fields_->flags;
}

bool Snapshot::matches(py::handle other, const Bounds& within) const {
    constexpr int wanted = npy_api::NPY_ARRAY_C_CONTIGUOUS_ | npy_api::NPY_ARRAY_ALIGNED_;
    if (Py_TYPE(other.ptr()) != ndarray) return false;
    const auto* const fields = py::detail::array_proxy(other.ptr());
    if (fields->descr != descr_.ptr() || fields->nd != ndim_ ||
        (fields->flags & flags_ & wanted) != wanted)
        return false;
    const py::ssize_t* const extents = layout();
    for (int axis = 0; axis < ndim_; ++axis)
        if (fields->dimensions[axis] != extents[axis]) return false;
    const auto low = reinterpret_cast<std::uintptr_t>(fields->data);
    return low >= within.low && low + bytes_ <= within.high;
}

void Snapshot::fetch() const {
    fetch_object(reinterpret_cast<PyObject*>(const_cast<py::detail::PyArray_Proxy*>(fields_)));
}

void fetch_object(py::handle object) {
    instep::fetch(object.ptr(), 2 * cache_line);
}

void fetch_axes(py::handle object) {
    if (Py_TYPE(object.ptr()) == ndarray)
        fetch_line(py::detail::array_proxy(object.ptr())->dimensions);
}

void know_numpy() {
    const py::module_ numpy = py::module_::import("numpy");
    ndarray = npy_api::get().PyArray_Type_;
    const auto type = [&](const char* name) {
        return reinterpret_cast<PyTypeObject*>(py::object(numpy.attr(name)).release().ptr());
    };
    float32_number = type("float32");
    float64_number = type("float64");
    any_number = type("generic");
    for (int k = 0; k < format_count; ++k) {
        type_numbers[k] = not_seen;
        if (!py::hasattr(numpy, formats[k].name)) continue;  // another package's
        const py::object descriptor = numpy.attr("dtype")(formats[k].name);
        type_numbers[k] = type_number(descriptor.ptr());
        const auto format = static_cast<Format>(k);
        if (format == format_of(precision_of(format)))
            descriptors[k] = py::object(descriptor).release().ptr();
    }
}

bool is_number(py::handle object) {
    return PyFloat_Check(object.ptr()) || PyObject_TypeCheck(object.ptr(), float32_number);
}

bool is_plain_number(py::handle object) {
    const PyTypeObject* const type = Py_TYPE(object.ptr());
    return type == &PyFloat_Type || type == &PyLong_Type || type == float64_number ||
           type == float32_number;
}

bool is_array(py::handle object) {
    if (Py_TYPE(object.ptr()) == ndarray) return true;
    return PyObject_TypeCheck(object.ptr(), ndarray) && !is_masked(object);
}

bool is_of_numpy(py::handle object) {
    return PyObject_TypeCheck(object.ptr(), ndarray) ||
           PyObject_TypeCheck(object.ptr(), any_number);
}

bool is_simple(py::handle object, bool writable) {
    if (Py_TYPE(object.ptr()) != ndarray) return false;
    const auto* const fields = py::detail::array_proxy(object.ptr());
    const int wanted = npy_api::NPY_ARRAY_C_CONTIGUOUS_ | npy_api::NPY_ARRAY_ALIGNED_ |
                       (writable ? npy_api::NPY_ARRAY_WRITEABLE_ : 0);
    return std::find(std::begin(descriptors), std::end(descriptors), fields->descr) !=
               std::end(descriptors) &&
           (fields->flags & wanted) == wanted;
}

bool is_usable(py::handle object, bool writable) {
    if (!is_array(object)) return false;
    const View view(object);
    return view.stored() && view.is_native() && view.has_flag(npy_api::NPY_ARRAY_ALIGNED_) &&
           (!writable || view.has_flag(npy_api::NPY_ARRAY_WRITEABLE_));
}

std::string description(py::handle object) {
    if (is_array(object)) return dtype_of(object) + " array of shape " + shape_of(View(object));
    const std::string type = Py_TYPE(object.ptr())->tp_name;
    return object.is_none() ? "None" : "an object of type " + type;
}

void check_array(py::handle object, const Name& name) {
    check_is_array(object, name, "a NumPy array");
}

void check_parameter(py::handle object, const Name& name, bool writable) {
    check_array(object, name);
    check_dtype(object, name);
    if (!writable) return;
    check_writable(View(object), name);
    // Of NumPy's maps of files.
    if (Py_TYPE(object.ptr()) != ndarray && py::hasattr(object, "mode") &&
        py::str(object.attr("mode")).equal(py::str("c")))
        throw py::value_error(name +
                              ": expected a map of a file in mode 'r+', got one in mode 'c', whose "
                              "changes reach no file");
}

Kept kept_as(const std::string& name) {
    for (int k = 0; k < format_count; ++k)
        if (name == formats[k].name) return {static_cast<Format>(k)};
    for (int k = 0; k < coding_count; ++k)
        if (name == codings[k].name) return {Format::float32, static_cast<Coding>(k)};
    throw py::value_error("there is no format or coding named '" + name + "'");
}

const char* Kept::dtype() const {
    if (coding != Coding::none) return info_of(coding).itemsize == 1 ? "uint8" : "uint16";
    // NumPy alone has no other name for its bits.
    return format == Format::bfloat16 ? "uint16" : formats[static_cast<int>(format)].name;
}

void check_statistics(py::handle object, const View& param, const Kept& kept, const Name& name) {
    check_array(object, name);
    const View view(object);
    const bool is_alike = kept.coding == Coding::none && kept.format == param.format();
    if (is_alike && view.is_native() && view.stored() && !view.same_format(param))
        throw py::type_error(name + ": expected the parameter's dtype, got " + dtype_of(object));
    check_dtype(object, name, is_alike ? nullptr : kept.dtype());
    check_writable(view, name);
}

void check_state(py::handle object, const View& param, const Kept& kept, const Name& name) {
    check_statistics(object, param, kept, name);
    check_shape(View(object), param, name);
}

void check_companion(py::handle object, const View& param, Coding coding, const Name& name) {
    const CodingInfo& info = info_of(coding);
    check_array(object, name);
    check_dtype(object, name, info.companion_bytes == sizeof(float) ? "float32" : "uint16");
    const View view(object);
    check_writable(view, name);
    if (info.elements == 1) return check_shape(view, param, name);
    const auto blocks =
        static_cast<py::ssize_t>((param.size() + info.elements - 1) / info.elements);
    if (view.ndim() != 1 || view.extent(0) != blocks ||
        !view.has_flag(npy_api::NPY_ARRAY_C_CONTIGUOUS_))
        throw py::value_error(name + ": expected a contiguous array of shape " +
                              text_of_shape({blocks}) + ", got " + shape_of(view));
}

void check_part(py::handle object, const View& param, const std::vector<int>& axes,
                const Kept& kept, const Name& name) {
    check_statistics(object, param, kept, name);
    const View view(object);
    std::vector<py::ssize_t> expected;
    for (const int axis : axes) expected.push_back(param.extent(axis));
    bool same = view.ndim() == static_cast<int>(axes.size());
    for (int axis = 0; same && axis < view.ndim(); ++axis)
        same = view.extent(axis) == expected[static_cast<std::size_t>(axis)];
    if (!same)
        throw py::value_error(name + ": expected shape " + text_of_shape(expected) + ", got " +
                              shape_of(view));
}

void check_scalar(py::handle object, const Name& name) {
    check_is_array(object, name, "a 0-d float64 array");
    check_dtype(object, name);
    const View view(object);
    if (view.format() != Format::float64 || view.ndim() != 0)
        throw py::type_error(name + ": expected a 0-d float64 array, got " + description(object));
    check_writable(view, name);
}

void check_values(py::handle object, const Name& name) {
    check_dtype(object, name);
}

void check_gradient(py::handle object, const View& param, const Name& name) {
    if (!is_array(object))
        check_is_array(object, name, "a NumPy array of shape " + shape_of(param));
    check_dtype(object, name);
    check_shape(View(object), param, name);
}

Order::Order(const View& param) : c_contiguous(param.has_flag(npy_api::NPY_ARRAY_C_CONTIGUOUS_)) {
    for (int axis = 0; axis < param.ndim(); ++axis)
        if (param.extent(axis) > 1) axes.push_back(axis);
    std::stable_sort(axes.begin(), axes.end(), [&](int a, int b) {
        return std::abs(param.stride(a)) > std::abs(param.stride(b));
    });
    for (const int axis : axes) shape.extents.push_back(param.extent(axis));
}

Order::Order(const View& param, std::vector<int> given) : Order(param) {
    if (!std::is_permutation(axes.begin(), axes.end(), given.begin(), given.end()))
        throw py::value_error("order: expected the array's axes of more than one element");
    c_contiguous = c_contiguous && given == axes;
    axes = std::move(given);
    for (std::size_t k = 0; k < axes.size(); ++k) shape.extents[k] = param.extent(axes[k]);
}

Stream Order::stream(const View& array, std::vector<std::ptrdiff_t>& storage) const {
    Stream stream{array.data(), array.stored().value_or(Format::float32)};
    if (c_contiguous && array.has_flag(npy_api::NPY_ARRAY_C_CONTIGUOUS_)) return stream;
    storage.resize(axes.size());
    auto expected = static_cast<std::ptrdiff_t>(array.item());
    bool contiguous = true;
    for (std::size_t k = axes.size(); k-- > 0;) {
        storage[k] = array.stride(axes[k]);
        contiguous &= storage[k] == expected;
        expected *= shape.extents[k];
    }
    if (contiguous) return stream;
    stream.strides = storage.data();
    stream.dense = array.has_flag(npy_api::NPY_ARRAY_C_CONTIGUOUS_) ||
                   array.has_flag(npy_api::NPY_ARRAY_F_CONTIGUOUS_);
    return stream;
}

std::vector<std::ptrdiff_t> Order::steps(const View& param) const {
    std::vector<std::ptrdiff_t> steps(axes.size());
    for (std::size_t k = 0; k < axes.size(); ++k) {
        steps[k] = 1;
        for (int axis = axes[k] + 1; axis < param.ndim(); ++axis) steps[k] *= param.extent(axis);
    }
    return std::is_sorted(axes.begin(), axes.end()) ? std::vector<std::ptrdiff_t>() : steps;
}

}  // namespace instep::bindings
