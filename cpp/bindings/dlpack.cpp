#include "bindings/dlpack.h"

#include <algorithm>

namespace instep::bindings {
namespace {

constexpr std::uint32_t major_version = 1;

/// DLPackExchangeAPI, as DLPack's ABI has it.
struct ExchangeTable {
    struct {
        std::uint32_t major, minor;
    } version;
    const ExchangeTable* older;
    void *allocate, *to_managed, *from_managed;
    int (*describe)(void* tensor, DlTensor* described);  ///< may be null
    void* current_work_stream;
};

}  // namespace

Layout::Layout(const DlTensor& tensor)
    : tensor_(tensor),
      shape_(tensor.shape, tensor.shape + tensor.ndim),
      strides_(tensor.strides, tensor.strides + tensor.ndim) {}

bool Layout::is_of(const DlTensor& tensor) const {
    return tensor.data == tensor_.data && tensor.byte_offset == tensor_.byte_offset &&
           tensor.device.type == tensor_.device.type && tensor.device.id == tensor_.device.id &&
           tensor.dtype.code == tensor_.dtype.code && tensor.dtype.bits == tensor_.dtype.bits &&
           tensor.dtype.lanes == tensor_.dtype.lanes && tensor.ndim == tensor_.ndim &&
           std::equal(shape_.begin(), shape_.end(), tensor.shape) &&
           std::equal(strides_.begin(), strides_.end(), tensor.strides);
}

Exchange::Exchange(py::handle type) {
    const py::object capsule = py::getattr(type, "__dlpack_c_exchange_api__", py::none());
    const ExchangeTable* table = nullptr;
    if (PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api"))
        table = static_cast<const ExchangeTable*>(
            PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    while (table && table->version.major != major_version) table = table->older;
    if (!table || !table->describe)
        throw py::type_error(
            "Tensors: expected tensors of PyTorch 2.13 or newer, whose type has "
            "DLPack's table of functions");
    describe_ = table->describe;
}

bool Exchange::describe(py::handle tensor, DlTensor& described) const {
    if (describe_(tensor.ptr(), &described) == 0) return true;
    PyErr_Clear();
    return false;
}

}  // namespace instep::bindings
