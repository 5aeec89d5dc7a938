#include "bindings/allocate.h"

#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace instep::bindings {
namespace {

constexpr std::align_val_t page{4096}, line{64};

template <std::align_val_t alignment>
void release(PyObject* capsule) {
    ::operator delete(PyCapsule_GetPointer(capsule, nullptr), alignment);
}

}  // namespace

py::array zeros(const std::vector<py::ssize_t>& shape, const py::dtype& dtype,
                const std::optional<std::vector<py::ssize_t>>& strides,
                std::optional<std::size_t> place) {
    std::size_t size = static_cast<std::size_t>(dtype.itemsize());
    for (const py::ssize_t extent : shape) size *= static_cast<std::size_t>(extent);
    size += place.value_or(0);
    const std::align_val_t alignment = place ? page : line;
    char* const memory = static_cast<char*>(::operator new(size, alignment));
#if defined(__linux__)
    if (place) madvise(memory, size, MADV_HUGEPAGE);  // where there are any
#endif
    std::memset(memory, 0, size);  // the system finds the memory now, not in a step
    PyObject* const owner = PyCapsule_New(memory, nullptr, place ? &release<page> : &release<line>);
    if (!owner) {
        ::operator delete(memory, alignment);
        throw py::error_already_set();
    }
    const auto kept = py::reinterpret_steal<py::object>(owner);
    char* const begin = memory + place.value_or(0);
    if (!strides) return py::array(dtype, shape, begin, kept);
    return py::array(dtype, shape, *strides, begin, kept);
}

py::array alias(const py::array& array) {
    const std::vector<py::ssize_t> shape(array.shape(), array.shape() + array.ndim());
    const std::vector<py::ssize_t> strides(array.strides(), array.strides() + array.ndim());
    return py::array(array.dtype(), shape, strides, array.data(), array.base());
}

}  // namespace instep::bindings
