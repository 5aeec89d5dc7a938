// The rules that there are.
#pragma once

#include <string_view>
#include <vector>

#include "engine/kernels.h"

namespace instep {

/// A rule: what it is made of, and its kernels in the level that this process uses.
struct Rule {
    RuleInfo info;
    const RuleKernels* kernels[precision_count];

    const RuleKernels& in(Precision precision) const {
        return *kernels[static_cast<int>(precision)];
    }
};

/// All of them but those of `Internal`.
const std::vector<Rule>& rules();

/// The rule of that name; null where there is none.
const Rule* find_rule(std::string_view name);

const Rule& internal(Internal rule);

}  // namespace instep
