// All kernels of one instruction-set level in one precision. Compiled with the level's flags, and
// with INSTEP_LEVEL and INSTEP_PRECISION set to their names; exports nothing but one table.
#include <utility>

#include "kernels/coded.h"
#include "kernels/codings.h"
#include "kernels/copy.h"
#include "kernels/parts.h"
#include "kernels/program.h"
#include "kernels/sums.h"
#include "kernels/touch.h"
#include "kernels/update.h"
#include "rules/table.h"

namespace instep::INSTEP_LEVEL {
namespace INSTEP_PRECISION {
namespace {

using Real = std::conditional_t<Precision::INSTEP_PRECISION == Precision::float64, double, float>;

// The rules of `Internal`

template <class T>
struct Rest {
    static constexpr auto slots = state();
    static constexpr auto hyperparameters = names();

    explicit Rest(const Numbers<Rest>&) {}
    template <Number V>
    INSTEP_INLINE void operator()(V&, V) const {}
};

template <class T>
struct Accumulate {
    static constexpr auto slots = state();
    static constexpr auto hyperparameters = names("first");

    bool first;

    explicit Accumulate(const Numbers<Accumulate>& now) : first(now["first"] != 0) {}
    template <Number V>
    INSTEP_INLINE void operator()(V& sum, V g) const {
        sum = first ? g : sum + g;
    }
};

template <class T>
struct Lend {
    static constexpr auto slots = state("update");
    static constexpr auto hyperparameters = names();

    explicit Lend(const Numbers<Lend>&) {}
    template <Number V>
    INSTEP_INLINE void operator()(V&, V g, V& lent) const {
        lent = g;
    }
};

template <class T>
struct Take {
    static constexpr auto slots = state();
    static constexpr auto hyperparameters = names();

    explicit Take(const Numbers<Take>&) {}
    template <Number V>
    INSTEP_INLINE void operator()(V& p, V update) const {
        p -= update;
    }
};

// From a rule to its kernels

template <class Rule>
concept has_scalars = requires { Rule::scalars; };
template <class Rule>
concept measures = requires { Rule::sums; };
template <class Rule>
concept measures_all = requires { Rule::sums_over_all; };
template <class Rule>
concept has_parts = divisible_slot<Rule>() >= 0;

template <template <class> class Rule>
bool prepare(const Program*, const Moment& moment, const double* own, double* scalars,
             const Around& around, Coefficients* to) {
    using Prepared = INSTEP_LEVEL::Prepared<Rule<Real>, Real>;
    static_assert(sizeof(Prepared) <= sizeof(Coefficients) &&
                  alignof(Prepared) <= alignof(Coefficients));
    bool plain = true;
    const Rule<Real> rule(Numbers<Rule<Real>>{moment, around.decay, own, scalars, &plain});
    Prepared prepared{rule, Surroundings<Real>(around), plain};
    prepared.plain &= prepared.around.plain;
    __builtin_memcpy(to, &prepared, sizeof prepared);
    return prepared.plain;
}

/// Tells a rule the sums that it measured.
template <template <class> class Rule>
void complete(const Sums& sums, double* scalars, Coefficients* coefficients) {
    const double elements = measures_all<Rule<Real>> ? sums.all_elements : sums.elements;
    reinterpret_cast<Prepared<Rule<Real>, Real>*>(coefficients)
        ->rule.complete(Totals<Rule<Real>>{sums.values, elements, scalars});
}

template <template <class> class Rule>
constexpr RuleInfo info_of(const char* name) {
    using Declared = Rule<Real>;
    constexpr auto slots = Declared::slots;
    constexpr auto hyperparameters = Declared::hyperparameters;
    static_assert(slots.count <= max_slots && hyperparameters.count <= max_hyperparameters);
    RuleInfo info{};
    info.name = name;
    info.slot_count = slots.count;
    for (int k = 0; k < slots.count; ++k)
        info.slots[k] = {slots.item[k].name, slots.item[k].optional, slots.item[k].positive,
                         slots.item[k].exact};
    info.hyperparameter_count = hyperparameters.count;
    for (int k = 0; k < hyperparameters.count; ++k)
        info.hyperparameters[k] = hyperparameters.item[k];
    if constexpr (has_scalars<Declared>) {
        static_assert(Declared::scalars.count <= max_scalars);
        info.scalar_count = Declared::scalars.count;
        for (int k = 0; k < info.scalar_count; ++k) info.scalars[k] = Declared::scalars.item[k];
    }
    if constexpr (measures<Declared>) {
        static_assert(Declared::sums.count <= max_sums);
        info.sum_count = Declared::sums.count;
        info.sums_over_all = measures_all<Declared> ? bit(Declared::sums.count) - 1 : 0;
    }
    info.divisible_slot = divisible_slot<Declared>();
    info.tells_of_parts = tells_of_parts<Declared>;
    info.rests = requires { Declared::rests; };
    return info;
}

template <template <class> class Rule>
constexpr unsigned required_slots() {
    unsigned slots = 0;
    for (int k = 0; k < Rule<Real>::slots.count; ++k)
        if (!Rule<Real>::slots.item[k].optional) slots |= 1u << k;
    return slots;
}

template <template <class> class Rule, unsigned slots>
constexpr void add_update(RuleKernels& kernels) {
    if constexpr ((slots & required_slots<Rule>()) == required_slots<Rule>() &&
                  ((slots & in_parts) == 0 || has_parts<Rule<Real>>)) {
        kernels.update[slots] = update<Rule, Real, slots>;
        if constexpr (measures<Rule<Real>>) kernels.measure[slots] = measure<Rule, Real, slots>;
        if constexpr (sizeof(Real) == sizeof(float) && slots < in_parts)
            kernels.update_coded[slots] = update_coded<Rule, slots>;
    }
}

template <template <class> class Rule>
constexpr RuleKernels kernels_of() {
    RuleKernels kernels{};
    kernels.prepare = prepare<Rule>;
    if constexpr (measures<Rule<Real>>) kernels.complete = complete<Rule>;
    if constexpr (has_parts<Rule<Real>>) {
        kernels.parts = {fold<Rule, Real>, pour<Rule, Real>, combine<Rule, Real>, renew<Rule, Real>,
                         nullptr};
        if constexpr (shows_parts<Rule<Real>>) kernels.parts.show = show<Rule, Real>;
    }
    [&]<unsigned... slots>(std::integer_sequence<unsigned, slots...>) {
        (add_update<Rule, slots>(kernels), ...);
        (add_update<Rule, slots | in_parts>(kernels), ...);
    }(std::make_integer_sequence<unsigned, 1u << Rule<Real>::slots.count>());
    return kernels;
}

// In the order of `Internal`.
#define INSTEP_INTERNAL(row) \
    row("rest", Rest) row("accumulate", Accumulate) row("lend", Lend) row("take", Take)
#define INSTEP_INFO(name, Rule) info_of<Rule>(name),
#define INSTEP_KERNELS(name, Rule) kernels_of<Rule>(),
constexpr RuleInfo rules[] = {INSTEP_RULES(INSTEP_INFO) INSTEP_INTERNAL(INSTEP_INFO)};
constexpr RuleKernels kernels[] = {INSTEP_RULES(INSTEP_KERNELS) INSTEP_INTERNAL(INSTEP_KERNELS)};
#undef INSTEP_INTERNAL
#undef INSTEP_INFO
#undef INSTEP_KERNELS

#if defined(__FMA__)
[[maybe_unused]] void fused_square_roots(const float* x, const float* estimates, float* roots,
                                         std::size_t count) {
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

/// What there is for each format.
template <class Stored>
constexpr void add_format(Unit& unit) {
    constexpr int format = static_cast<int>(format_of_type<Stored>);
    unit.gather[format] = copy<Real, Stored, Real>;
    unit.transpose[format] = transpose<Stored, Real>;
    unit.scatter[format] = copy<Real, Real, Stored>;
    [&]<int... arrays>(std::integer_sequence<int, arrays...>) {
        ((unit.touch[format][arrays + 1] = touch<Real, Stored, arrays + 1>), ...);
    }(std::make_integer_sequence<int, max_touched>());
}

[[maybe_unused]] constexpr Coder coders[] = {
#define INSTEP_ROW(name, Coded, bytes, elements, beside, is_random) coder_of<Coded>(),
    INSTEP_CODINGS(INSTEP_ROW)
#undef INSTEP_ROW
};

constexpr Unit make_unit() {
    Unit made{};
    made.rules = rules;
    made.kernels = kernels;
    made.rule_count = sizeof rules / sizeof rules[0] - internal_count;
    made.formula = program_kernels<Real>();
    made.sum_of_squares = sum_of_squares<Real>;
    made.watch_gradient = watch_gradient<Real>;
    made.watch_change = watch_change<Real>;
    made.chooses_square_roots = spares_divider<Real>;
    if (sizeof(Real) == sizeof(float)) made.fused_square_roots = fused_square_roots;
#define INSTEP_ROW(name, Stored, bytes) add_format<Stored>(made);
    INSTEP_FORMATS(INSTEP_ROW)
#undef INSTEP_ROW
    if constexpr (sizeof(Real) == sizeof(float)) {
        made.coders = coders;
        made.random_bits = random_bits;
    }
    return made;
}
constexpr Unit this_unit = make_unit();

}  // namespace

const Unit& unit() {
    return this_unit;
}

}  // namespace INSTEP_PRECISION
}  // namespace instep::INSTEP_LEVEL
