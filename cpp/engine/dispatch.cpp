#include "engine/dispatch.h"

#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace instep {

#define INSTEP_UNITS(level)    \
    namespace level::float32 { \
    const Unit& unit();        \
    }                          \
    namespace level::float64 { \
    const Unit& unit();        \
    }
INSTEP_UNITS(baseline)
INSTEP_UNITS(avx2)
INSTEP_UNITS(avx512)
#undef INSTEP_UNITS

namespace {

struct Candidate {
    const char* name;
    const Unit& (*units[precision_count])();
    bool supported;
};

#if defined(__x86_64__)
/// What the processor tells of itself: a leaf's registers, zeros where it has no such leaf.
struct Leaf {
    unsigned a = 0, b = 0, c = 0, d = 0;
    explicit Leaf(unsigned number) { __get_cpuid_count(number, 0, &a, &b, &c, &d); }
};

/// The registers that the system keeps when it switches threads.
unsigned kept_registers() {
    if (!(Leaf(1).c & bit_OSXSAVE)) return 0;
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

bool has(unsigned bits, unsigned wanted) {
    return (bits & wanted) == wanted;
}

// Compilers can be asked for each of these, but not for all of them, nor on every platform.
bool has_v3() {
    constexpr unsigned halves_of_ymm = 0x06;
    return has(kept_registers(), halves_of_ymm) &&
           has(Leaf(1).c, bit_FMA | bit_MOVBE | bit_AVX | bit_F16C) &&
           has(Leaf(7).b, bit_AVX2 | bit_BMI | bit_BMI2) && has(Leaf(0x80000001).c, bit_LZCNT);
}

[[maybe_unused]] bool has_v4() {
    constexpr unsigned parts_of_zmm = 0xe0;
    return has_v3() && has(kept_registers(), parts_of_zmm) &&
           has(Leaf(7).b, bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW | bit_AVX512VL);
}
#endif

std::vector<Candidate> candidates() {
    std::vector<Candidate> all;
#if defined(INSTEP_HAS_BASELINE)
    all.push_back({"baseline", {baseline::float32::unit, baseline::float64::unit}, true});
#endif
#if defined(INSTEP_HAS_AVX2)
    all.push_back({"avx2", {avx2::float32::unit, avx2::float64::unit}, has_v3()});
#endif
#if defined(INSTEP_HAS_AVX512)
    all.push_back({"avx512", {avx512::float32::unit, avx512::float64::unit}, has_v4()});
#endif
    return all;
}

Level choose() {
    const char* const wanted = std::getenv("INSTEP_ISA");
    const Candidate* best = nullptr;
    std::string names;
    const std::vector<Candidate> all = candidates();
    for (const Candidate& each : all) {
        names += (names.empty() ? "" : ", ") + std::string(each.name);
        if (!wanted || !*wanted) {
            if (each.supported) best = &each;
        } else if (std::string(wanted) == each.name) {
            if (!each.supported)
                throw std::runtime_error("INSTEP_ISA=" + std::string(wanted) +
                                         ": this processor does not have these instructions");
            best = &each;
        }
    }
    if (!best)
        throw std::runtime_error("INSTEP_ISA=" + std::string(wanted) +
                                 " is not an instruction set of this build; it has " + names);
    return {best->name, {&best->units[0](), &best->units[1]()}};
}

}  // namespace

const Level& level() {
    static const Level chosen = choose();
    return chosen;
}

std::vector<std::string> built_levels() {
    std::vector<std::string> names;
    for (const Candidate& each : candidates()) names.emplace_back(each.name);
    return names;
}

}  // namespace instep
