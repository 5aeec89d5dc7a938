// What an instruction-set level offers: kernels that work on one block of contiguous elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace instep {

enum class Dtype : std::uint8_t { float32, float64 };
inline constexpr int dtype_count = 2;
inline constexpr std::size_t itemsize(Dtype dtype) {
    return dtype == Dtype::float32 ? 4 : 8;
}

/// Kernels take a multiple of this many elements; the engine pads the last ones of an array. Sums
/// over a block have as many partial sums, one per element index modulo it: a fixed order of
/// addition whatever the width of the vectors.
inline constexpr std::size_t granule = 32;
inline constexpr int max_slots = 4;
inline constexpr int max_hyperparameters = 12;

inline constexpr double no_clipping = __builtin_huge_val();

/// What happens to the gradient and the parameter around the rule, in this order. What is left at
/// its default costs nothing.
struct Around {
    double unscale = 1;  ///< the gradient times this, before `Block::accumulated` is added
    double scale = 1;    ///< then times this: mean, clipping by norm, sign of maximize
    double clipvalue = no_clipping;  ///< each element into [-clipvalue, clipvalue]
    double l2 = 0;                   ///< coupled decay
    double decay = 0;                ///< decoupled decay, times the learning rate
    double ema_momentum = 0;
    bool first_average = false;  ///< the average starts as a copy of the parameter
    bool overwrite = false;      ///< the parameter becomes its average
};

/// Contiguous elements of all streams of one array. `grad` has the parameter's dtype.
struct Block {
    void* param;
    const void* grad;
    void* slots[max_slots];    ///< null where the configuration does not use the slot
    void* average;             ///< null without EMA
    const void* accumulated;   ///< null outside an accumulation window
    std::size_t count;         ///< a multiple of `granule`
    const void* coefficients;  ///< written by the rule's `prepare`
    const Around* around;
};

/// A rule's numbers for one step in its dtype; opaque outside its kernels.
struct alignas(16) Coefficients {
    unsigned char bytes[128];
};

struct SlotInfo {
    const char* name;
    bool optional;
};

using Prepare = void (*)(double learning_rate, std::int64_t step, const double* hyperparameters,
                         Coefficients* to);
using Update = void (*)(const Block&);

struct RuleKernels {
    const char* name;
    int slot_count;
    SlotInfo slots[max_slots];
    int hyperparameter_count;
    const char* hyperparameters[max_hyperparameters];
    Prepare prepare[dtype_count];
    /// By dtype and by the set of slots in use (bit k: slot k); null where a slot is missing.
    Update update[dtype_count][1 << max_slots];
};

struct Level {
    const char* name;
    const RuleKernels* rules;
    int rule_count;
    /// Leaves the parameter as it is: for averages of arrays without a gradient.
    RuleKernels rest;
    /// Adds the gradient to the "parameter", an accumulator; its only hyperparameter is 1 where the
    /// accumulator starts anew.
    RuleKernels accumulate;
    /// Adds the squares of (unscale * grad + accumulated) to `granule` sums.
    void (*sum_of_squares[dtype_count])(const Block&, double* sums);
};

namespace baseline {
const Level& level();
}
#if defined(INSTEP_X86_LEVELS)
namespace avx2 {
const Level& level();
}
namespace avx512 {
const Level& level();
}
#endif

}  // namespace instep
