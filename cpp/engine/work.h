// What a step is made of: plans for arrays that are updated alike, and each array's part.
#pragma once

#include "engine/parts.h"
#include "engine/registry.h"
#include "engine/stream.h"

namespace instep {

/// A kernel and what it works with.
struct Call {
    Update kernel = nullptr;
    Coefficients coefficients;

    void operator()(const Blocks& blocks, const Ahead& ahead) const {
        kernel(blocks, ahead, coefficients);
    }
};

/// What arrays that are updated alike have in common in a step.
struct Plan {
    const Rule* rule = nullptr;
    unsigned slots = 0;     ///< in use
    std::size_t array = 0;  ///< one of those
    bool is_given = true;   ///< their gradients are the caller's
    bool has_gradient = true;
    Around around;
    Call update;
    UpdateCoded update_coded = nullptr;  ///< with its coefficients; null where they are not plain
    Call lend;                           ///< where somebody else makes the update of the gradient
    Measure measure = nullptr;           ///< where the update needs sums
    const PartKernels* parts = nullptr;  ///< where arrays keep a slot in parts
    double scalars[max_scalars]{};       ///< of a plan's only array, as they will be after the step

    /// Chooses a rule's kernels for these slots.
    void choose(const Rule& from, Precision precision, unsigned slots);
    /// Sets the coefficients of the update from the numbers of the step and from `around`.
    void prepare(Precision precision, const Moment& moment, const double* hyperparameters);
};

/// What a pass over memory does with elements: a kernel, and the streams that it knows of.
struct Operation {
    const Call* call;
    unsigned used, written;
};

class MissedUpdates;

/// The rows of an array that a step updates.
struct TouchedRows {
    const std::vector<std::uint32_t>* ids = nullptr;  ///< ascending
    std::size_t length = 0;                           ///< elements of each
    MissedUpdates* missed = nullptr;                  ///< by all; null where that is nothing
    bool others_miss = false;                         ///< this update, too
    bool clears = false;                              ///< what was accumulated of them becomes zero
    const PartKernels* parts = nullptr;  ///< of the slot that has a number for each row

    std::size_t elements() const { return ids->size() * length; }
};

/// One parameter array's part in a step.
struct Work {
    Block block;  ///< all of its elements
    Stream grad;  ///< the caller's, or an accumulator; may be missing
    const Layout* layout;
    std::size_t plan;             ///< index into `Step::plans`
    unsigned buffered;            ///< the streams that kernels can't read as they are
    StreamIndex target;           ///< what is updated: the parameter, or the accumulator
    bool raw_gradient;            ///< whether the gradient is the caller's
    bool is_random;               ///< random bits decide on roundings: the layout tells, far away
    bool has_copy;                ///< a rounded copy is to be written of the parameter; likewise
    std::uint32_t noise_key = 0;  ///< of the array in this update
    SeenParts* parts = nullptr;   ///< of a slot in parts
    const TouchedRows* touched = nullptr;  ///< null: all of its rows

    Work(const Layout& arrays, StreamIndex what, unsigned streams, const Stream& gradient,
         bool is_raw, std::size_t its_plan);

    Precision precision() const { return layout->precision; }
    const Stream& stream(int index) const {
        if (index == grad_stream) return grad;
        return layout->streams[index == param_stream ? target : index];
    }
    /// Where its elements are read from.
    const Stream& source(int index) const {
        const bool is_param = index == param_stream && target == param_stream;
        return is_param && layout->param_source.data ? layout->param_source : stream(index);
    }
    /// Whether a rounded copy is to be written of what these streams are changed to.
    bool is_copied(unsigned written) const { return has_copy && written & bit(param_stream); }
    /// Whether kernels for coded blocks can update it by such a plan.
    bool is_coded(const Plan& its_plan) const;
    /// Elements of it for those.
    CodedBlock coded_part(std::size_t start, std::size_t count) const;
    void set_gradient(const Stream& gradient);
    /// From now on the gradient is the update that somebody else has left in the first slot.
    void take_update();
};

/// Elements [start, start + count) of a block.
Block part_of(const Block& block, Precision precision, std::size_t start, std::size_t count);

}  // namespace instep
