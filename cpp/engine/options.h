// The options that all rules have in common. A row here is what the engine keeps of one, under its
// name in Python; a value of None leaves it at the default.
#pragma once

#include <cstdint>

namespace instep {

inline constexpr double no_limit = __builtin_huge_val();

/// What gradients of some rows mean for others: they stay as they are, or their gradient is zero.
enum Sparse : std::int64_t { lazy, exact };

// clang-format off
/// Those of a group of parameter arrays.
#define INSTEP_GROUP_OPTIONS(row)                      \
    row(double, l2, 0)            /* coupled decay */  \
    row(double, weight_decay, 0)  /* decoupled */      \
    row(bool, independent_weight_decay, false)  /* of the learning rate */ \
    row(double, clipnorm, no_limit)                    \
    row(double, clipvalue, no_limit)                   \
    row(bool, maximize, false)                         \
    row(std::int64_t, sparse, 0)  /* a `Sparse` */     \
    row(double, learning_rate_factor, 1)  /* on the common rate, or the group's own */

/// Those of all arrays together.
#define INSTEP_OPTIONS(row)                                               \
    row(double, loss_scale_factor, 1)                                     \
    row(double, global_clipnorm, no_limit)                                \
    row(bool, skip_nonfinite, false)                                      \
    row(std::int64_t, watch, 0)  /* a set of `Watch` */                   \
    row(std::int64_t, gradient_accumulation_steps, 1)                     \
    row(std::int64_t, first_step, 1)               /* the count of an array's first update */  \
    row(std::int64_t, seed, 0)                     /* of random roundings */  \
    row(double, ema_momentum, 0)                                          \
    row(std::int64_t, ema_overwrite_frequency, 0)  /* in updates; 0: never */
// clang-format on

#define INSTEP_MEMBER(type, name, otherwise) type name = otherwise;
#define INSTEP_VISIT(type, name, otherwise) visit(#name, name);

struct GroupOptions {
    INSTEP_GROUP_OPTIONS(INSTEP_MEMBER)

    template <class Visit>
    void for_each(Visit visit) {
        INSTEP_GROUP_OPTIONS(INSTEP_VISIT)
    }
};

struct Options {
    INSTEP_OPTIONS(INSTEP_MEMBER)

    template <class Visit>
    void for_each(Visit visit) {
        INSTEP_OPTIONS(INSTEP_VISIT)
    }
};

#undef INSTEP_MEMBER
#undef INSTEP_VISIT

}  // namespace instep
