#include "bindings/allocate.h"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace instep::bindings {
namespace {

constexpr std::size_t page = 4096, line = 64;

}  // namespace

py::array zeros(const std::vector<py::ssize_t>& shape, const py::dtype& dtype,
                const std::optional<std::vector<py::ssize_t>>& strides,
                std::optional<std::size_t> place) {
    std::size_t size = static_cast<std::size_t>(dtype.itemsize());
    for (const py::ssize_t extent : shape) size *= static_cast<std::size_t>(extent);
    const std::size_t alignment = place ? page : line;
    size = (size + place.value_or(0) + alignment) / alignment * alignment;
    char* const memory = static_cast<char*>(std::aligned_alloc(alignment, size));
    if (!memory) throw std::bad_alloc();
#if defined(__linux__)
    if (place) madvise(memory, size, MADV_HUGEPAGE);  // where there are any
#endif
    std::memset(memory, 0, size);  // the system finds the memory now, not in a step
    PyObject* const owner = PyCapsule_New(memory, nullptr, [](PyObject* capsule) {
        std::free(PyCapsule_GetPointer(capsule, nullptr));
    });
    if (!owner) {
        std::free(memory);
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
