#include "engine/registry.h"

#include "engine/dispatch.h"

namespace instep {
namespace {

Rule rule_at(int index) {
    Rule rule{unit(Precision::float32).rules[index], {}};
    for (int p = 0; p < precision_count; ++p) rule.kernels[p] = &level().units[p]->kernels[index];
    return rule;
}

std::vector<Rule> rules_from(int first, int count) {
    std::vector<Rule> found;
    for (int k = first; k < first + count; ++k) found.push_back(rule_at(k));
    return found;
}

}  // namespace

const std::vector<Rule>& rules() {
    static const std::vector<Rule> all = rules_from(0, unit(Precision::float32).rule_count);
    return all;
}

const Rule* find_rule(std::string_view name) {
    for (const Rule& rule : rules())
        if (name == rule.info.name) return &rule;
    return nullptr;
}

const Rule& internal(Internal rule) {
    static const std::vector<Rule> all =
        rules_from(unit(Precision::float32).rule_count, internal_count);
    return all[static_cast<std::size_t>(rule)];
}

}  // namespace instep
