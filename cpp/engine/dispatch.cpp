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
/// LZCNT, MOVBE and F16C, which belong to x86-64-v3 and which not every compiler can be asked for.
bool has_v3_rest() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C) || !(c & bit_MOVBE)) return false;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & bit_LZCNT);
}
#endif

std::vector<Candidate> candidates() {
    std::vector<Candidate> all;
#if defined(INSTEP_HAS_BASELINE)
    all.push_back({"baseline", {baseline::float32::unit, baseline::float64::unit}, true});
#endif
#if defined(__x86_64__)
    __builtin_cpu_init();
    [[maybe_unused]] const bool v3 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_v3_rest();
    [[maybe_unused]] const bool v4 =
        v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl");
#if defined(INSTEP_HAS_AVX2)
    all.push_back({"avx2", {avx2::float32::unit, avx2::float64::unit}, v3});
#endif
#if defined(INSTEP_HAS_AVX512)
    all.push_back({"avx512", {avx512::float32::unit, avx512::float64::unit}, v4});
#endif
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
