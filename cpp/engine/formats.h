// How numbers are stored in memory: one row a format, and one row a coding.
#pragma once

#include <cstddef>
#include <cstdint>

namespace instep {

// Its name, which is NumPy's, too; the type in kernels/formats.h that says how it is read and
// written; the bytes of an element.
// clang-format off
#define INSTEP_FORMATS(row)                \
    row(float32,  float,    4)             \
    row(float64,  double,   8)             \
    row(float16,  Float16,  2)             \
    row(bfloat16, BFloat16, 2)

// What is kept otherwise than rounded to nearest in a format of its own: its name; the type in
// kernels/codings.h that says how it is read and written; the bytes of an element; what stands
// beside each so many elements in a companion, and its bytes; whether random bits decide on
// roundings.
#define INSTEP_CODINGS(row)                                             \
    row(stochastic_float16,  Stochastic<Float16>,  2, 1,   0, true)     \
    row(stochastic_bfloat16, Stochastic<BFloat16>, 2, 1,   0, true)     \
    row(remainder,           Remainder,            2, 1,   2, false)    \
    row(master,              Master,               2, 1,   4, false)    \
    row(float8,              Float8,               1, 256, 4, true)     \
    row(positive_float8,     PositiveFloat8,       1, 256, 4, true)
// clang-format on

enum class Format : std::uint8_t {
#define INSTEP_ROW(name, Stored, bytes) name,
    INSTEP_FORMATS(INSTEP_ROW)
#undef INSTEP_ROW
};

struct FormatInfo {
    const char* name;
    std::size_t itemsize;
};
inline constexpr FormatInfo formats[] = {
#define INSTEP_ROW(name, Stored, bytes) {#name, bytes},
    INSTEP_FORMATS(INSTEP_ROW)
#undef INSTEP_ROW
};
inline constexpr int format_count = sizeof formats / sizeof formats[0];

inline constexpr std::size_t itemsize(Format format) {
    return formats[static_cast<int>(format)].itemsize;
}

enum class Coding : std::uint8_t {
#define INSTEP_ROW(name, Coded, bytes, elements, beside, is_random) name,
    INSTEP_CODINGS(INSTEP_ROW)
#undef INSTEP_ROW
        none,
};

struct CodingInfo {
    const char* name;
    std::size_t itemsize;
    std::size_t elements, companion_bytes;  ///< so many of these beside so many elements
    bool is_random;
};
inline constexpr CodingInfo codings[] = {
#define INSTEP_ROW(name, Coded, bytes, elements, beside, is_random) \
    {#name, bytes, elements, beside, is_random},
    INSTEP_CODINGS(INSTEP_ROW)
#undef INSTEP_ROW
};
inline constexpr int coding_count = sizeof codings / sizeof codings[0];

inline constexpr const CodingInfo& info_of(Coding coding) {
    return codings[static_cast<int>(coding)];
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
