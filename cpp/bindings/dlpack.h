// Where other libraries' tensors lie, told in C by the table of functions that DLPack 1.3 has for
// it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace instep::bindings {

namespace py = pybind11;

/// DLTensor, as DLPack's ABI has it.
struct DlTensor {
    void* data;
    struct {
        std::int32_t type, id;
    } device;
    std::int32_t ndim;
    struct {
        std::uint8_t code, bits;
        std::uint16_t lanes;
    } dtype;
    std::int64_t *shape, *strides;
    std::uint64_t byte_offset;
};

/// A tensor's memory, dtype, shape and strides, without the tensor.
class Layout {
public:
    Layout() = default;
    explicit Layout(const DlTensor& tensor);
    bool is_of(const DlTensor& tensor) const;

private:
    DlTensor tensor_{};
    std::vector<std::int64_t> shape_, strides_;
};

/// A library's table of functions.
class Exchange {
public:
    /// Of the library that has this type of tensors, or one that it is derived from; raises
    /// TypeError where it has none.
    explicit Exchange(py::handle type);

    /// Describes a tensor of that type; false: it has no memory of its own. What it points to is
    /// the tensor's, for as long as nobody changes that.
    bool describe(py::handle tensor, DlTensor& described) const;

private:
    int (*describe_)(void* tensor, DlTensor* described) = nullptr;
};

}  // namespace instep::bindings
