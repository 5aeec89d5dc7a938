// A rule as data: what becomes of a formula.
#pragma once

#include <cstdint>

#include "engine/kernels.h"

namespace instep {

// clang-format off
/// What can be done to elements and to numbers of a step alike: its name, and how many operands it
/// takes. kernels/program.h says what it means.
#define INSTEP_COMMON_OPERATIONS(row) \
    row(add, 2)                       \
    row(subtract, 2)                  \
    row(multiply, 2)                  \
    row(divide, 2)                    \
    row(maximum, 2)                   \
    row(minimum, 2)                   \
    row(less, 2)                      \
    row(less_equal, 2)                \
    row(equal, 2)                     \
    row(root, 1)                      \
    row(absolute, 1)                  \
    row(sign, 1)                      \
    row(where, 3)                     \
    row(power, 2)

/// What is done to elements.
#define INSTEP_ELEMENT_OPERATIONS(row) \
    INSTEP_COMMON_OPERATIONS(row)      \
    row(copy, 1)                       \
    row(multiply_add, 3)               \
    row(root_add, 3)                   \
    row(product_over, 3)               \
    row(add_product_over, 4)           \
    row(add_product_over_root, 6)      \
    row(average, 3)                    \
    row(average_of_squares, 4)         \
    row(decay_add, 3)

/// What is done to numbers of a step, in double precision.
#define INSTEP_NUMBER_OPERATIONS(row) \
    INSTEP_COMMON_OPERATIONS(row)     \
    row(complement_of_power, 2)
// clang-format on

#define INSTEP_NAME(name, operands) name,
enum class ElementOperation : std::uint8_t { INSTEP_ELEMENT_OPERATIONS(INSTEP_NAME) };
enum class NumberOperation : std::uint8_t { INSTEP_NUMBER_OPERATIONS(INSTEP_NAME) };
#undef INSTEP_NAME

struct OperationInfo {
    const char* name;
    int operands;
};
#define INSTEP_INFO(name, operands) {#name, operands},
inline constexpr OperationInfo element_operations[] = {INSTEP_ELEMENT_OPERATIONS(INSTEP_INFO)};
inline constexpr OperationInfo number_operations[] = {INSTEP_NUMBER_OPERATIONS(INSTEP_INFO)};
#undef INSTEP_INFO
inline constexpr int element_operation_count = sizeof element_operations / sizeof(OperationInfo);
inline constexpr int number_operation_count = sizeof number_operations / sizeof(OperationInfo);

/// What operations on elements read and write, by index: the parameter, the gradient, slots, then
/// as many temporaries, then constants, which are the same for all elements.
inline constexpr int param_operand = 0, grad_operand = 1, first_slot_operand = 2;
inline constexpr int first_temporary = first_slot_operand + max_slots;
inline constexpr int max_temporaries = 12;
inline constexpr int first_constant = first_temporary + max_temporaries;
inline constexpr int max_constants = 32;
inline constexpr int operand_count = first_constant + max_constants;
inline constexpr int max_instructions = 96;
inline constexpr int most_operands = 6;

struct Instruction {
    ElementOperation operation;
    std::uint8_t to;
    std::uint8_t operand[most_operands];
};

struct Instructions {
    int count = 0;
    Instruction item[max_instructions];

    const Instruction* begin() const { return item; }
    const Instruction* end() const { return item + count; }
};

/// The numbers of a step, by index: what it is told, literals, then the result of each operation.
enum NumberIndex {
    rate_number,
    step_number,
    elements_number,      ///< of the array
    all_elements_number,  ///< of those that step
    first_hyperparameter_number,
    first_scalar_number = first_hyperparameter_number + max_hyperparameters,
    first_sum_number = first_scalar_number + max_scalars,
    first_literal_number = first_sum_number + max_sums
};
inline constexpr int max_literals = 48;
inline constexpr int first_result_number = first_literal_number + max_literals;
inline constexpr int max_number_instructions = 160;
inline constexpr int number_count = first_result_number + max_number_instructions;
static_assert(number_count <= 256);

struct NumberInstruction {
    NumberOperation operation;
    std::uint8_t operand[3];
};

/// How a number reaches elements: as it is, as the constants of an `Average` or a `Decay`, or with
/// all its digits, as a `Decay` has them.
enum class Form : std::uint8_t { number, average, decay, exponent };
inline constexpr int constants_of[] = {1, 3, 2, 2};
struct Constant {
    std::uint8_t number;
    Form form;
};

struct Program {
    int literal_count = 0;
    double literals[max_literals];
    int number_instruction_count = 0;
    NumberInstruction number_instructions[max_number_instructions];
    /// Each takes so many constants, one after the other.
    int constant_count = 0;
    Constant constants[max_constants];
    /// What becomes of the array's own numbers.
    int scalar_count = 0;
    std::uint8_t scalars[max_scalars];
    /// Sums of products of two operands, after these instructions, which write temporaries alone.
    Instructions measure;
    int sum_count = 0;
    std::uint8_t factors[max_sums][2];
    Instructions update;
};

}  // namespace instep
