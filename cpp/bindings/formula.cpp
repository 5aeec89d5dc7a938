#include "bindings/formula.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/box.h"
#include "bindings/options.h"

namespace instep::bindings {
namespace {

/// Which of the operations has that name.
template <std::size_t count>
int index_of(const OperationInfo (&operations)[count], const std::string& name) {
    for (std::size_t k = 0; k < count; ++k)
        if (name == operations[k].name) return static_cast<int>(k);
    throw py::value_error("program: there is no operation named '" + name + "'");
}

void check_count(std::size_t count, int most, const char* what) {
    if (count > static_cast<std::size_t>(most))
        throw py::value_error(std::string("formula: expected at most ") + std::to_string(most) +
                              " " + what + ", got " + std::to_string(count));
}

std::uint8_t operand_from(py::handle given) {
    const int index = given.cast<int>();
    if (index < 0 || index > 255) throw py::value_error("program: unknown operand");
    return static_cast<std::uint8_t>(index);
}

/// The operands among a tuple's items, from one on.
template <std::size_t count>
void read_operands(const py::tuple& given, std::size_t first, int expected,
                   std::uint8_t (&operands)[count]) {
    if (given.size() != first + static_cast<std::size_t>(expected))
        throw py::value_error("program: expected other operands");
    for (std::size_t k = first; k < given.size(); ++k) operands[k - first] = operand_from(given[k]);
}

Instructions instructions_from(const py::object& given) {
    const py::tuple all(given);
    check_count(all.size(), max_instructions, "operations on elements");
    Instructions result{};
    for (const py::handle item : all) {
        const auto each = item.cast<py::tuple>();
        Instruction& instruction = result.item[result.count++];
        const int operation = index_of(element_operations, each[0].cast<std::string>());
        instruction.operation = static_cast<ElementOperation>(operation);
        instruction.to = operand_from(each[1]);
        read_operands(each, 2, element_operations[operation].operands, instruction.operand);
    }
    return result;
}

Program program_from(const py::dict& given) {
    Program program{};
    const py::tuple literals(entry(given, "literals"));
    check_count(literals.size(), max_literals, "different numbers");
    for (const py::handle each : literals)
        program.literals[program.literal_count++] = each.cast<double>();
    const py::tuple numbers(entry(given, "numbers"));
    check_count(numbers.size(), max_number_instructions, "operations on numbers of the step");
    for (const py::handle item : numbers) {
        const auto each = item.cast<py::tuple>();
        NumberInstruction& to = program.number_instructions[program.number_instruction_count++];
        const int operation = index_of(number_operations, each[0].cast<std::string>());
        to.operation = static_cast<NumberOperation>(operation);
        read_operands(each, 1, number_operations[operation].operands, to.operand);
    }
    const py::tuple constants(entry(given, "constants"));
    check_count(constants.size(), max_constants, "numbers of the step that elements meet");
    const std::string forms[] = {"number", "average", "decay", "exponent"};
    for (const py::handle item : constants) {
        const auto each = item.cast<py::tuple>();
        const auto* const form =
            std::find(std::begin(forms), std::end(forms), each[1].cast<std::string>());
        program.constants[program.constant_count++] = {operand_from(each[0]),
                                                       static_cast<Form>(form - std::begin(forms))};
    }
    const py::tuple becomes(entry(given, "becomes"));
    check_count(becomes.size(), max_scalars, "numbers that are kept for an array");
    for (const py::handle each : becomes)
        program.scalars[program.scalar_count++] = operand_from(each);
    program.measure = instructions_from(entry(given, "measure"));
    program.update = instructions_from(entry(given, "update"));
    const py::tuple sums(entry(given, "sums"));
    check_count(sums.size(), max_sums, "sums");
    for (const py::handle item : sums) {
        const auto each = item.cast<py::tuple>();
        for (std::size_t k = 0; k < 2; ++k)
            program.factors[program.sum_count][k] = operand_from(each[k]);
        ++program.sum_count;
    }
    return program;
}

FormulaNames names_from(const py::dict& given) {
    FormulaNames names;
    const auto list = [&](const char* name) {
        return entry(given, name).cast<std::vector<std::string>>();
    };
    names.rule = entry(given, "rule").cast<std::string>();
    names.slots = list("slots");
    check_count(names.slots.size(), max_slots, "state arrays");
    names.hyperparameters = list("hyperparameters");
    check_count(names.hyperparameters.size(), max_hyperparameters, "hyperparameters");
    names.scalars = list("scalars");
    const std::vector<std::string> positive = list("positive"), exact = list("exact");
    const auto has = [](const std::vector<std::string>& all, const std::string& slot) {
        return std::find(all.begin(), all.end(), slot) != all.end();
    };
    for (const std::string& slot : names.slots) {
        names.is_positive.push_back(has(positive, slot));
        names.is_exact.push_back(has(exact, slot));
    }
    unsigned index = 0;
    for (const py::handle each : entry(given, "sums")) {
        if (each.cast<py::tuple>()[2].cast<bool>()) names.sums_over_all |= 1u << index;
        ++index;
    }
    return names;
}

PyObject* new_formula(PyTypeObject*, PyObject* given, PyObject* named) {
    return guarded([&] {
        if (PyTuple_GET_SIZE(given) != 0 || !named)
            throw py::type_error("Formula: expected arguments by name");
        return Box<FormulaObject>::make(
            std::make_unique<FormulaObject>(py::reinterpret_borrow<py::dict>(named)));
    });
}

PyObject* formula_info(PyObject* self, void*) {
    return guarded([&] { return Box<FormulaObject>::of(self).info(); });
}

template <std::size_t count>
py::dict operands_of(const OperationInfo (&operations)[count]) {
    py::dict result;
    for (const OperationInfo& each : operations) result[each.name] = each.operands;
    return result;
}

}  // namespace

py::dict described(const RuleInfo& rule) {
    py::list slots, positive, exact, hyperparameters, scalars;
    for (int s = 0; s < rule.slot_count; ++s) {
        const SlotInfo& slot = rule.slots[s];
        slots.append(py::make_tuple(slot.name, slot.optional));
        if (slot.positive) positive.append(slot.name);
        if (slot.exact) exact.append(slot.name);
    }
    for (int h = 0; h < rule.hyperparameter_count; ++h)
        hyperparameters.append(rule.hyperparameters[h]);
    for (int s = 0; s < rule.scalar_count; ++s) scalars.append(rule.scalars[s]);
    py::dict described;
    described["slots"] = py::tuple(slots);
    described["divisible"] = rule.divisible_slot < 0
                                 ? py::object(py::none())
                                 : py::str(rule.slots[rule.divisible_slot].name);
    described["positive"] = py::tuple(positive);
    described["exact"] = py::tuple(exact);
    described["hyperparameters"] = py::tuple(hyperparameters);
    described["scalars"] = py::tuple(scalars);
    described["elementwise"] = rule.sum_count == 0 && rule.divisible_slot < 0;
    return described;
}

FormulaObject::FormulaObject(const py::dict& given)
    : formula_(program_from(given), names_from(given)) {}

const Rule& rule_of(py::handle given) {
    if (!PyUnicode_Check(given.ptr())) return Box<FormulaObject>::checked(given).rule();
    const auto name = given.cast<std::string>();
    if (const Rule* const rule = find_rule(name)) return *rule;
    const Rule& whole = internal(Internal::lend);
    if (name != whole.info.name) throw py::value_error("there is no rule named '" + name + "'");
    return whole;
}

void add_formula(py::module_& module) {
    static PyGetSetDef attributes[] = {{"info", formula_info, nullptr, nullptr, nullptr},
                                       {nullptr, nullptr, nullptr, nullptr, nullptr}};
    module.attr("Formula") = Box<FormulaObject>::make_type(
        "instep._core.Formula", 0,
        {{Py_tp_new, reinterpret_cast<void*>(new_formula)}, {Py_tp_getset, attributes}});
    module.attr("element_operations") = operands_of(element_operations);
    module.attr("number_operations") = operands_of(number_operations);
    py::dict layout;
    layout["slot"] = first_slot_operand;
    layout["temporary"] = first_temporary;
    layout["temporaries"] = max_temporaries;
    layout["constant"] = first_constant;
    layout["constants"] = max_constants;
    layout["hyperparameter"] = int{first_hyperparameter_number};
    layout["scalar"] = int{first_scalar_number};
    layout["sum"] = int{first_sum_number};
    layout["literal"] = int{first_literal_number};
    layout["result"] = first_result_number;
    module.attr("program_layout") = layout;
}

}  // namespace instep::bindings
