#include "engine/work.h"

#include "engine/float_mode.h"

namespace instep {

void Plan::choose(const Rule& from, Precision precision, unsigned its_slots) {
    rule = &from;
    slots = its_slots;
    update.kernel = from.in(precision).update[slots];
    measure = from.in(precision).measure[slots];
    parts = slots & in_parts ? &from.in(precision).parts : nullptr;
}

void Plan::prepare(Precision precision, const Moment& moment, const double* hyperparameters) {
    const FlushSubnormals mode;  // numbers, too, come from one floating-point mode
    const RuleKernels& kernels = rule->in(precision);
    const bool is_plain = kernels.prepare(kernels.program, moment, hyperparameters, scalars, around,
                                          &update.coefficients);
    update_coded = is_plain && slots < in_parts ? kernels.update_coded[slots] : nullptr;
}

Work::Work(const Layout& arrays, StreamIndex what, unsigned streams, const Stream& gradient,
           bool is_raw, std::size_t its_plan)
    : block(arrays.block),
      layout(&arrays),
      plan(its_plan),
      buffered(arrays.buffered),
      target(what),
      raw_gradient(is_raw),
      is_random(arrays.is_random),
      has_copy(arrays.copy.data && what == param_stream) {
    if (target != param_stream) {
        block.data[param_stream] = block.data[target];
        buffered = (buffered & ~bit(param_stream)) | (buffered >> target & 1) << param_stream;
    }
    set_gradient(gradient);
    if ((layout->present & ~streams) == 0) return;
    buffered &= streams;
    for (int s = 0; s < stream_count; ++s)
        if (!(streams & bit(s))) block.data[s] = nullptr;
}

void Work::set_gradient(const Stream& gradient) {
    grad = gradient;
    // A kernel that works without a gradient reads one all the same.
    block.data[grad_stream] = grad.data ? grad.data : block.data[param_stream];
    block.grad_format = grad.data ? grad.format : format_of(precision());
    buffered &= ~bit(grad_stream);
    if (grad.data && !grad.contiguous()) buffered |= bit(grad_stream);
}

void Work::take_update() {
    set_gradient(layout->streams[first_slot]);
    block.factors = {};
    block.data[accumulated_stream] = block.data[first_slot] = nullptr;
    buffered &= ~(bit(accumulated_stream) | bit(first_slot));
}

bool Work::is_coded(const Plan& its_plan) const {
    return layout->coded && its_plan.update_coded && target == param_stream && grad.data &&
           !(buffered & bit(grad_stream)) && !has_copy && !block.data[average_stream] &&
           !block.data[accumulated_stream] && block.factors.first == 1;
}

CodedBlock Work::coded_part(std::size_t start, std::size_t count) const {
    CodedBlock part{block, &*layout->coded, noise_key, layout->first_element + start};
    part.count = count;
    const auto advance = [start](void*& data, std::size_t item) {
        if (data) data = static_cast<char*>(data) + start * item;
    };
    for (int s = 0; s < stream_count; ++s) advance(part.data[s], stream(s).item());
    return part;
}

Block part_of(const Block& block, Precision precision, std::size_t start, std::size_t count) {
    Block part = block;
    const std::size_t item = itemsize(format_of(precision));
    for (int s = 0; s < stream_count; ++s)
        if (part.data[s])
            part.data[s] = static_cast<char*>(part.data[s]) +
                           start * (s == grad_stream ? itemsize(block.grad_format) : item);
    part.count = count;
    return part;
}

}  // namespace instep
