// How numbers are stored in memory: one row a format.
#pragma once

#include <cstddef>
#include <cstdint>

namespace instep {

// Its name, which is NumPy's, too; the type in kernels/formats.h that says how it is read and
// written; the bytes of an element; whether parameters and state may have it, which kernels then
// write, too, or gradients alone.
// clang-format off
#define INSTEP_FORMATS(row)                    \
    row(float32, float,   4, true)             \
    row(float64, double,  8, true)             \
    row(float16, Float16, 2, false)
// clang-format on

enum class Format : std::uint8_t {
#define INSTEP_ROW(name, Stored, bytes, for_parameters) name,
    INSTEP_FORMATS(INSTEP_ROW)
#undef INSTEP_ROW
};

struct FormatInfo {
    const char* name;
    std::size_t itemsize;
    bool for_parameters;
};
inline constexpr FormatInfo formats[] = {
#define INSTEP_ROW(name, Stored, bytes, for_parameters) {#name, bytes, for_parameters},
    INSTEP_FORMATS(INSTEP_ROW)
#undef INSTEP_ROW
};
inline constexpr int format_count = sizeof formats / sizeof formats[0];

inline constexpr std::size_t itemsize(Format format) {
    return formats[static_cast<int>(format)].itemsize;
}

/// What kernels compute in.
enum class Precision : std::uint8_t { float32, float64 };
inline constexpr int precision_count = 2;

/// What a parameter of that format is updated in.
inline constexpr Precision precision_of(Format format) {
    return format == Format::float64 ? Precision::float64 : Precision::float32;
}
/// The format of numbers that are stored as kernels compute with them.
inline constexpr Format format_of(Precision precision) {
    return precision == Precision::float64 ? Format::float64 : Format::float32;
}

}  // namespace instep
