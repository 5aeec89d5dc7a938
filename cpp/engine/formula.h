// A rule that is a program, beside those that are compiled.
#pragma once

#include <string>
#include <vector>

#include "engine/program.h"
#include "engine/registry.h"

namespace instep {

/// What a formula's names are for, in the order of its program's numbers.
struct FormulaNames {
    std::string rule;
    std::vector<std::string> slots, hyperparameters, scalars;
    std::vector<bool> is_positive, is_exact;  ///< of each slot; see `positive` and `exact`
    unsigned sums_over_all = 0;
};

class Formula {
public:
    /// Throws std::invalid_argument where the program does not fit into its limits, or names what
    /// it does not have.
    Formula(const Program& program, FormulaNames names);
    Formula(const Formula&) = delete;
    Formula& operator=(const Formula&) = delete;

    const Rule& rule() const { return rule_; }

private:
    Program program_;
    FormulaNames names_;
    RuleKernels kernels_[precision_count];
    Rule rule_;
};

}  // namespace instep
