// All kernels of one instruction-set level. Compiled once per level, with its flags and with
// INSTEP_LEVEL set to its name; exports nothing but the level's table.
#include "engine/copy.h"
#include "engine/sums.h"
#include "engine/touch.h"
#include "engine/update.h"
#include "rules/table.h"

namespace instep::INSTEP_LEVEL {
namespace {

/// Leaves the parameter as it is.
template <class T>
struct Rest {
    static constexpr auto slots = state();
    static constexpr auto hyperparameters = names();

    explicit Rest(const StepNumbers&) {}
    template <class V>
    INSTEP_INLINE void operator()(V&, V) const {}
};

/// Sums gradients; `parameter` is the accumulator.
template <class T>
struct Accumulate {
    static constexpr auto slots = state();
    static constexpr auto hyperparameters = names("first");

    bool first;

    explicit Accumulate(const StepNumbers& now) : first(now.own[0] != 0) {}
    template <class V>
    INSTEP_INLINE void operator()(V& sum, V g) const {
        sum = first ? g : sum + g;
    }
};

/// Stands for a rule that sees whole arrays and works outside of the engine: at first hands it the
/// gradient in `direction`, then takes the step that has become of it.
template <class T>
struct Direction {
    static constexpr auto slots = state("direction");
    static constexpr auto hyperparameters = names("takes");

    bool takes;

    explicit Direction(const StepNumbers& now) : takes(now.own[0] != 0) {}
    template <class V>
    INSTEP_INLINE void operator()(V& p, V g, V& direction) const {
        if (takes)
            p -= direction;
        else
            direction = g;
    }
};

template <template <class> class Rule, class T>
void prepare(double learning_rate, std::int64_t step, const double* own, double* scalars,
             const Around& around, Coefficients* to) {
    using Numbers = Prepared<Rule<T>, T>;
    static_assert(sizeof(Numbers) <= sizeof(Coefficients) &&
                  alignof(Numbers) <= alignof(Coefficients));
    bool plain = true;
    const Rule<T> rule(StepNumbers{learning_rate, step, own, scalars, &plain});
    Numbers numbers{rule, Surroundings<T>(around), plain};
    numbers.plain &= numbers.around.plain;
    __builtin_memcpy(to, &numbers, sizeof numbers);
}

/// Tells a rule the sums that it measured.
template <template <class> class Rule, class T>
void complete(const double* sums, double* scalars, Coefficients* coefficients) {
    reinterpret_cast<Prepared<Rule<T>, T>*>(coefficients)->rule.complete(sums, scalars);
}

template <class Rule>
concept has_scalars = requires { Rule::scalars; };
template <class Rule>
concept measures = requires { Rule::sums; };
template <class Rule>
concept measures_all = requires { Rule::sums_over_all; };

template <template <class> class Rule>
constexpr unsigned required_slots() {
    unsigned slots = 0;
    for (int k = 0; k < Rule<float>::slots.count; ++k)
        if (!Rule<float>::slots.item[k].optional) slots |= 1u << k;
    return slots;
}

template <template <class> class Rule, unsigned slots>
constexpr void add_update(RuleKernels& kernels) {
    if constexpr ((slots & required_slots<Rule>()) == required_slots<Rule>()) {
        kernels.update[int(Dtype::float32)][slots] = update<Rule, float, slots>;
        kernels.update[int(Dtype::float64)][slots] = update<Rule, double, slots>;
        if constexpr (measures<Rule<float>>) {
            kernels.measure[int(Dtype::float32)][slots] = measure<Rule, float, slots>;
            kernels.measure[int(Dtype::float64)][slots] = measure<Rule, double, slots>;
        }
    }
}

template <template <class> class Rule, unsigned... slots>
constexpr void add_updates(RuleKernels& kernels, std::integer_sequence<unsigned, slots...>) {
    (add_update<Rule, slots>(kernels), ...);
}

template <template <class> class Rule>
constexpr RuleKernels kernels_of(const char* name) {
    constexpr auto slots = Rule<float>::slots;
    constexpr auto hyperparameters = Rule<float>::hyperparameters;
    static_assert(slots.count <= max_slots && hyperparameters.count <= max_hyperparameters);
    RuleKernels kernels{};
    kernels.name = name;
    kernels.slot_count = slots.count;
    for (int k = 0; k < slots.count; ++k)
        kernels.slots[k] = {slots.item[k].name, slots.item[k].optional};
    kernels.hyperparameter_count = hyperparameters.count;
    for (int k = 0; k < hyperparameters.count; ++k)
        kernels.hyperparameters[k] = hyperparameters.item[k];
    if constexpr (has_scalars<Rule<float>>) {
        constexpr auto scalars = Rule<float>::scalars;
        static_assert(scalars.count <= max_scalars);
        kernels.scalar_count = scalars.count;
        for (int k = 0; k < scalars.count; ++k) kernels.scalars[k] = scalars.item[k];
    }
    if constexpr (measures<Rule<float>>) {
        static_assert(Rule<float>::sums <= max_sums);
        kernels.sum_count = Rule<float>::sums;
        kernels.sums_over_all = measures_all<Rule<float>>;
        kernels.complete[int(Dtype::float32)] = complete<Rule, float>;
        kernels.complete[int(Dtype::float64)] = complete<Rule, double>;
    }
    kernels.prepare[int(Dtype::float32)] = prepare<Rule, float>;
    kernels.prepare[int(Dtype::float64)] = prepare<Rule, double>;
    add_updates<Rule>(kernels, std::make_integer_sequence<unsigned, 1u << slots.count>());
    return kernels;
}

#define INSTEP_ROW(name, Rule) kernels_of<Rule>(name),
constexpr RuleKernels rules[] = {INSTEP_RULES(INSTEP_ROW)};
#undef INSTEP_ROW

#if defined(__FMA__)
void fused_square_roots(const float* x, const float* estimates, float* roots, std::size_t count) {
    using V = Vector<float>;
    for (std::size_t i = 0; i < count; i += sizeof(V) / sizeof(float)) {
        const V estimate =
            estimates ? load<V>(estimates + i) : reciprocal_root_estimate(load<V>(x + i));
        store(roots + i, square_root_from(estimate, load<V>(x + i)));
    }
}
#else
constexpr auto fused_square_roots = nullptr;
#endif

/// What exists for two dtypes, T and G.
template <class T, class G, int... arrays>
constexpr void add_pair(Level& level, std::integer_sequence<int, arrays...>) {
    constexpr int t = sizeof(T) == 8, g = sizeof(G) == 8;
    level.copy[g][t] = copy<G, T>;
    level.transpose[g][t] = transpose<G, T>;
    ((level.touch[t][g][arrays + 1] = touch<T, G, arrays + 1>), ...);
}

#define INSTEP_STRING(token) #token
#define INSTEP_NAME(token) INSTEP_STRING(token)
constexpr Level make_level() {
    Level level{};
    level.name = INSTEP_NAME(INSTEP_LEVEL);
    level.rules = rules;
    level.rule_count = sizeof rules / sizeof rules[0];
    level.rest = kernels_of<Rest>("rest");
    level.accumulate = kernels_of<Accumulate>("accumulate");
    level.direction = kernels_of<Direction>("direction");
    level.sum_of_squares[int(Dtype::float32)] = sum_of_squares<float>;
    level.sum_of_squares[int(Dtype::float64)] = sum_of_squares<double>;
    level.fused_square_roots = fused_square_roots;
    constexpr auto arrays = std::make_integer_sequence<int, max_touched>();
    add_pair<float, float>(level, arrays);
    add_pair<float, double>(level, arrays);
    add_pair<double, float>(level, arrays);
    add_pair<double, double>(level, arrays);
    return level;
}
constexpr Level this_level = make_level();

}  // namespace

const Level& level() {
    return this_level;
}

}  // namespace instep::INSTEP_LEVEL
