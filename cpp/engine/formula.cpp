#include "engine/formula.h"

#include <stdexcept>
#include <utility>

#include "engine/dispatch.h"

namespace instep {
namespace {

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

bool is_within(std::size_t count, int most) {
    return count <= static_cast<std::size_t>(most);
}

/// Which operands and numbers there are.
class Known {
public:
    Known(const Program& program, const FormulaNames& names) : program_(program), names_(names) {
        int next = first_constant;
        for (int k = 0; k < program.constant_count; ++k) {
            const auto form = static_cast<int>(program.constants[k].form);
            require(form < static_cast<int>(std::size(constants_of)), "program: unknown form");
            if (next < operand_count) forms_[next] = form + 1;
            next += constants_of[form];
        }
        require(next <= operand_count, "program: too many constants");
    }

    bool is_number(int index, int results) const {
        const auto is_one_of = [index](int first, std::size_t count) {
            return first <= index && index < first + static_cast<int>(count);
        };
        return index < first_hyperparameter_number ||
               is_one_of(first_hyperparameter_number, names_.hyperparameters.size()) ||
               is_one_of(first_scalar_number, names_.scalars.size()) ||
               is_one_of(first_sum_number, static_cast<std::size_t>(program_.sum_count)) ||
               is_one_of(first_literal_number, static_cast<std::size_t>(program_.literal_count)) ||
               is_one_of(first_result_number, static_cast<std::size_t>(results));
    }
    bool is_stream(int index) const {
        return index < first_slot_operand + static_cast<int>(names_.slots.size());
    }
    bool is_temporary(int index) const {
        return first_temporary <= index && index < first_constant;
    }
    /// Whether it can be read by elements, or holds the constants of that form.
    bool is_operand(int index) const { return is_stream(index) || is_temporary(index); }
    bool has_form(int index, Form form) const {
        return first_constant <= index && index < operand_count &&
               forms_[index] == static_cast<int>(form) + 1;
    }

private:
    const Program& program_;
    const FormulaNames& names_;
    int forms_[operand_count]{};
};

/// What the last operand of an operation must be, where that is not elements or a number.
Form form_of_last(ElementOperation operation) {
    switch (operation) {
        case ElementOperation::average:
        case ElementOperation::average_of_squares:
            return Form::average;
        case ElementOperation::decay_add:
            return Form::decay;
        case ElementOperation::power:
            return Form::exponent;
        default:
            return Form::number;
    }
}

void check(const Instructions& instructions, const Known& known, bool may_write_streams) {
    require(instructions.count <= max_instructions, "program: too many instructions");
    for (const Instruction& each : instructions) {
        const auto operation = static_cast<int>(each.operation);
        require(operation < element_operation_count, "program: unknown operation");
        const Form form = form_of_last(each.operation);
        const int count = element_operations[operation].operands;
        for (int k = 0; k < most_operands; ++k) {
            const int index = each.operand[k];
            const bool is_special = k == count - 1 && form != Form::number;
            require(is_special ? known.has_form(index, form)
                               : known.is_operand(index) || known.has_form(index, Form::number),
                    "program: unknown operand");
        }
        const bool is_writable_stream = known.is_stream(each.to) && each.to != grad_operand;
        require(known.is_temporary(each.to) || (may_write_streams && is_writable_stream),
                "program: it writes what it must not");
    }
}

}  // namespace

Formula::Formula(const Program& program, FormulaNames names)
    : program_(program), names_(std::move(names)), kernels_{}, rule_{} {
    require(is_within(names_.slots.size(), max_slots) &&
                is_within(names_.hyperparameters.size(), max_hyperparameters) &&
                is_within(names_.scalars.size(), max_scalars) &&
                names_.slots.size() == names_.is_positive.size() &&
                names_.slots.size() == names_.is_exact.size() &&
                is_within(static_cast<std::size_t>(program_.scalar_count), max_scalars),
            "program: too many names");
    require(names_.scalars.size() == static_cast<std::size_t>(program_.scalar_count),
            "program: expected what becomes of each number");
    const Known known(program_, names_);
    for (int k = 0; k < program_.number_instruction_count; ++k) {
        const NumberInstruction& each = program_.number_instructions[k];
        require(static_cast<int>(each.operation) < number_operation_count,
                "program: unknown operation");
        for (const int index : each.operand)
            require(known.is_number(index, k), "program: unknown number");
    }
    const auto is_number = [&](int index) {
        return known.is_number(index, program_.number_instruction_count);
    };
    for (int k = 0; k < program_.constant_count; ++k)
        require(is_number(program_.constants[k].number), "program: unknown number");
    for (int k = 0; k < program_.scalar_count; ++k)
        require(is_number(program_.scalars[k]), "program: unknown number");
    check(program_.measure, known, false);
    check(program_.update, known, true);
    for (int s = 0; s < program_.sum_count; ++s)
        for (const int index : program_.factors[s])
            require(known.is_operand(index) || known.has_form(index, Form::number),
                    "program: unknown operand");

    RuleInfo& info = rule_.info;
    info.name = names_.rule.c_str();
    info.slot_count = static_cast<int>(names_.slots.size());
    unsigned slots = 0;
    for (int k = 0; k < info.slot_count; ++k) {
        const auto index = static_cast<std::size_t>(k);
        info.slots[k] = {names_.slots[index].c_str(), false, names_.is_positive[index],
                         names_.is_exact[index]};
        slots |= bit(k);
    }
    for (const std::string& name : names_.hyperparameters)
        info.hyperparameters[info.hyperparameter_count++] = name.c_str();
    for (const std::string& name : names_.scalars) info.scalars[info.scalar_count++] = name.c_str();
    info.sum_count = program_.sum_count;
    info.sums_over_all = names_.sums_over_all;
    info.divisible_slot = -1;
    for (int p = 0; p < precision_count; ++p) {
        const RuleKernels& any = unit(static_cast<Precision>(p)).formula;
        RuleKernels& kernels = kernels_[p];
        kernels.program = &program_;
        kernels.prepare = any.prepare;
        kernels.complete = any.complete;
        if (program_.sum_count) kernels.measure[slots] = any.measure[0];
        kernels.update[slots] = any.update[0];
        rule_.kernels[p] = &kernels;
    }
}

}  // namespace instep
