// Which instruction-set level this process uses, and the rules in it.
#pragma once

#include <string>
#include <vector>

#include "engine/kernels.h"

namespace instep {

/// The kernels of an instruction set.
struct Level {
    const char* name;
    const Unit* units[precision_count];
};

/// The best level that the processor has, or the lower one that INSTEP_ISA names. Chosen at the
/// first call; throws std::runtime_error where INSTEP_ISA names none or one the processor lacks.
const Level& level();

/// Its kernels in one precision.
inline const Unit& unit(Precision precision) {
    return *level().units[static_cast<int>(precision)];
}

/// Names of the levels in this build, lowest first.
std::vector<std::string> built_levels();

}  // namespace instep
