#include "bindings/codings.h"

#include <algorithm>

#include "bindings/arrays.h"
#include "engine/float_mode.h"

namespace instep::bindings {
namespace {

struct Both {
    Shape shape;
    std::size_t size;
    Stream numbers, coded;
};

Both both(const py::object& numbers, const std::string& coding, const py::object& codes,
          const py::object& beside) {
    const auto named = [&](const CodingInfo& info) { return coding == info.name; };
    const auto found = std::find_if(std::begin(codings), std::end(codings), named);
    if (found == std::end(codings)) throw py::value_error("there is no coding '" + coding + "'");
    const auto its_coding = static_cast<Coding>(found - codings);
    const Name names[] = {Name(std::string("numbers")), Name(std::string("codes")),
                          Name(std::string("beside"))};
    check_parameter(numbers, names[0]);
    const View view(numbers);
    check_state(codes, view, {Format::float32, its_coding}, names[1]);
    Both result{{{static_cast<std::ptrdiff_t>(view.size())}},
                view.size(),
                {view.data(), view.format()},
                {View(codes).data()}};
    result.coded.coding = its_coding;
    if (found->companion_bytes) {
        check_companion(beside, view, its_coding, names[2]);
        result.coded.companion = View(beside).data();
    }
    for (const py::object& each : {numbers, codes, found->companion_bytes ? beside : codes})
        if (!View(each).has_flag(py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_))
            throw py::value_error("expected C-contiguous arrays");
    return result;
}

}  // namespace

void encode(const py::object& numbers, const std::string& coding, const py::object& codes,
            const py::object& beside) {
    const Both streams = both(numbers, coding, codes, beside);
    const FlushSubnormals mode;
    copy_numbers(streams.shape, streams.size, streams.numbers, streams.coded);
}

void decode(const py::object& codes, const std::string& coding, const py::object& beside,
            const py::object& numbers) {
    const Both streams = both(numbers, coding, codes, beside);
    const FlushSubnormals mode;
    copy_numbers(streams.shape, streams.size, streams.coded, streams.numbers);
}

}  // namespace instep::bindings
