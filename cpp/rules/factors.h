// Factors that float32 does not hold, although products with them may be numbers that it does.
#pragma once

namespace instep {

/// A factor as two: the second one is 1 where one will do.
struct Factors {
    double first = 1, second = 1;
};

/// Of x times `more`: clipping 1e38 to a norm of 1, say. Internal to each translation unit, so that
/// the linker cannot mix instruction sets.
[[maybe_unused]] static inline Factors factors(double x, bool is_single, double more = 1) {
    if (!is_single) return {x, more};
    constexpr double tiny = 0x1p-126, huge = 0x1p126;
    x *= more;
    const double size = x < 0 ? -x : x;
    if (!(0 < size && size < tiny) && !(huge < size)) return {x, 1};
    const double first = size < tiny ? tiny : huge, second = x / first;
    return {first, second > huge ? huge : second < -huge ? -huge : second};
}

}  // namespace instep
