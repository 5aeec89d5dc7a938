// Which instruction-set level this process uses.
#pragma once

#include <string>
#include <vector>

#include "engine/kernels.h"

namespace instep {

/// The best level that the processor has, or the lower one that INSTEP_ISA names. Chosen at the
/// first call; throws std::runtime_error where INSTEP_ISA names none or one the processor lacks.
const Level& level();

/// Names of the levels in this build, lowest first.
std::vector<std::string> built_levels();

/// The rule of that name in the chosen level; null where there is none.
const RuleKernels* find_rule(const std::string& name);

}  // namespace instep
