// What an instruction-set level offers: kernels that work on contiguous elements.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/formats.h"
#include "engine/options.h"
#include "rules/factors.h"
#include "rules/moment.h"

namespace instep {

/// Sums over a block have as many partial sums, one per element index modulo it: a fixed order of
/// addition whatever the width of the vectors.
inline constexpr std::size_t sum_lanes = 32;
inline constexpr int max_slots = 4;
/// Sets of slots have a bit for each, and this one where the divisible slot is in parts.
inline constexpr unsigned in_parts = 1u << max_slots;
inline constexpr unsigned slot_sets = 2 * in_parts;
inline constexpr int max_hyperparameters = 12;
inline constexpr int max_scalars = 3;
inline constexpr int max_sums = 6;

/// Elements that go through buffers at a time: those of a few streams fit the first-level cache.
/// Threads share an array at multiples of it.
inline constexpr std::size_t tile_elements = 1024;

/// The arrays that a kernel works on; slots follow.
enum StreamIndex { param_stream, grad_stream, average_stream, accumulated_stream, first_slot };
inline constexpr int stream_count = first_slot + max_slots;
/// Sets of streams have a bit for each.
inline constexpr unsigned bit(int stream) {
    return 1u << stream;
}
inline constexpr unsigned all_streams = bit(stream_count) - 1;

/// How the streams of an array are kept.
struct Coded {
    Coding coding[stream_count];  ///< none: as kernels compute
    void* companion[stream_count];
    bool is_random;
};

/// Contiguous elements of all streams of one array, stored as kernels compute with them; the
/// gradient may have any format.
struct Block {
    void* data[stream_count];  ///< null where there is no such stream
    std::size_t count;
    Format grad_format;
    Factors factors{};  ///< on the gradient: `Around::scale`, and clipping by norm
    /// Where the stream of a slot in parts is one of them: what the others, which are for all of
    /// these elements, come to together.
    const void* common = nullptr;
};

/// A block of which some streams are kept otherwise: how, what random bits come from, and which of
/// the array's elements is its first.
struct CodedBlock : Block {
    const Coded* coded;
    std::uint32_t noise_key;
    std::size_t first;
};

/// Blocks that are updated alike, each so many bytes behind the one before.
struct Blocks {
    const Block* first;
    std::size_t count = 1, stride = 0;

    const Block& operator[](std::size_t k) const {
        return *reinterpret_cast<const Block*>(reinterpret_cast<const char*>(first) + k * stride);
    }
};

/// How a kernel goes about its work; all manners give the same bits.
struct Manner {
    /// So many bytes ahead, memory of each stream is fetched into the cache; 0: none is.
    std::size_t bytes_ahead = 0;
    /// Where a unit chooses square roots: half of them are taken without the divider, which others
    /// and the divisions keep busy, or else a quarter.
    bool half_of_roots = true;
};

/// The manner, and at the end of what is fetched ahead the block that comes after.
struct Ahead {
    const Block& after;
    Manner manner;
};

/// What happens to the gradient and the parameter around the rule. What is left at its default
/// costs nothing.
struct Around {
    Factors unscale{};   ///< the gradient times these, before `accumulated` is added
    double scale = 1;    ///< then times this, by way of `Block::factors`: mean, sign of maximize
    GroupOptions group;  ///< clipping by value, then coupled decay
    double decay = 0;    ///< decoupled decay, times the learning rate
    double ema_momentum = 0;
    bool first_average = false;  ///< the average starts as a copy of the parameter
    bool overwrite = false;      ///< the parameter becomes its average
};

/// A rule's numbers for one step and what surrounds it, in its precision; opaque outside its
/// kernels.
struct alignas(64) Coefficients {
    unsigned char bytes[512];
};

struct SlotInfo {
    const char* name;
    bool optional, positive, exact;
};

/// What a rule is made of, whatever the precision.
struct RuleInfo {
    const char* name;
    int slot_count;
    SlotInfo slots[max_slots];
    int hyperparameter_count;
    const char* hyperparameters[max_hyperparameters];
    int scalar_count;
    const char* scalars[max_scalars];
    int sum_count;           ///< sums over all elements that the update needs
    unsigned sums_over_all;  ///< a bit for each: not of each array, but of all of them
    int divisible_slot;      ///< which slot may be kept in parts; negative: none
    bool tells_of_parts;     ///< elements look at their parts before they tell
    /// Where no optional slots are in use, a gradient of zero changes nothing.
    bool rests;

    /// Whether there are sums, and none of an array alone: then its own numbers belong to all.
    bool is_over_all() const { return sum_count && sums_over_all == bit(sum_count) - 1; }
};

/// What a formula has become; see program.h.
struct Program;

/// `scalars` are the array's own numbers, which become those after the step. `program` is what the
/// rule is made of that is a formula. Returns whether nothing surrounds the rule but, maybe,
/// decoupled decay, and its averages are long ones.
using Prepare = bool (*)(const Program* program, const Moment&, const double* hyperparameters,
                         double* scalars, const Around&, Coefficients* to);
/// Adds to `sum_lanes` partial sums for each of the rule's sums what a block contributes.
using Measure = void (*)(const Block&, std::size_t bytes_ahead, const Coefficients&, double* sums);
/// Completes the coefficients and scalars once the sums are known, of which some are over all
/// arrays.
struct Sums {
    double values[max_sums];
    double elements, all_elements;
};
using Complete = void (*)(const Sums&, double* scalars, Coefficients*);
/// Updates blocks.
using Update = void (*)(const Blocks&, const Ahead&, const Coefficients&);
using UpdateCoded = void (*)(const CodedBlock&, const Ahead&, const Coefficients&);

/// What a rule does with a slot that is kept in parts, whose cells lie one after the other. A run
/// is of neighbouring elements along one axis: parts have a cell for each of them, or one for all.
struct PartKernels {
    /// Adds what each element of a run tells to its number in `each`, which may be null and begins
    /// anew if so wanted, and all of it to those cells that are for all.
    void (*fold)(const Block& run, std::size_t bytes_ahead, const Coefficients&, void* each,
                 bool begins, double* const* all, int all_count);
    /// Adds so many such numbers to their cells.
    void (*pour)(const void* each, std::size_t count, double* cells);
    /// Writes what each element of a run sees of its parts.
    void (*combine)(const void* const* each, int each_count, const void* const* all, int all_count,
                    void* to, std::size_t count);
    /// Puts together what so many `chunks` of elements told (cells of one lie `stride` after those
    /// of the one before), so many to each cell, and writes what cells become, and what is seen of
    /// them, where the cells as they were stand.
    void (*renew)(const Coefficients&, double* told, std::size_t chunks, std::size_t stride,
                  double elements, void* seen, void* becomes, std::size_t cells);
    /// Makes of new cells what is seen of them; null where that is the cells as they were. Those of
    /// the first part may be normalized along an axis, with so many neighbours to each cell around
    /// it: `outer` times `extent` times `inner` of them; no extent, no norm.
    void (*show)(const Coefficients&, void* cells, std::size_t outer, std::size_t extent,
                 std::size_t inner);
};

/// A rule in one precision.
struct RuleKernels {
    const Program* program;
    Prepare prepare;
    Complete complete;
    /// By the set of slots in use (bit k: slot k); null where a slot is missing.
    Measure measure[slot_sets];
    Update update[slot_sets];
    /// By the set of slots in use. The coefficients are plain, and so is the block: with no
    /// average, nothing accumulated, and factors of 1. Null in float64.
    UpdateCoded update_coded[in_parts];
    PartKernels parts;
};

/// Copies so many elements, and converts them to or from what kernels compute with; strides in
/// bytes.
using Copy = void (*)(const char* from, std::ptrdiff_t from_stride, char* to,
                      std::ptrdiff_t to_stride, std::size_t count);
/// The same for rows of so many elements, from anywhere into a buffer with room for `row_length`
/// in each row.
using Transpose = void (*)(const char* from, std::ptrdiff_t row_stride,
                           std::ptrdiff_t column_stride, void* to, std::size_t row_length,
                           std::size_t rows, std::size_t count);

/// How contiguous elements of a coding are read into a buffer and written from one. Buffers have
/// room for a whole tile, those of random bits, too, which are there whether they are used or not.
struct Coder {
    void (*decode)(const void* stored, const void* companion, std::size_t count, float* to);
    void (*encode)(const float* from, void* stored, void* companion, std::size_t count,
                   const std::uint16_t* random_bits);
};

/// The memory traffic of an update without its mathematics: adds the gradient to each array, and
/// fetches so many bytes ahead.
inline constexpr int max_touched = 1 + max_slots;
using Touch = void (*)(void* const* arrays, const void* grad, std::size_t count, std::size_t ahead);

/// The rules that the engine has for itself.
enum class Internal {
    rest,        ///< leaves the parameter as it is: for averages of arrays without a gradient
    accumulate,  ///< adds the gradient to the "parameter", an accumulator, or starts it anew
    lend,        ///< leaves the gradient, clipped and so on, in a slot for somebody else to see
    take,        ///< takes the "gradient" off the parameter: the update that they have made of it
};
inline constexpr int internal_count = 4;

/// All kernels of a level in one precision.
struct Unit {
    const RuleInfo* rules;
    const RuleKernels* kernels;  ///< of the rules, and then of `Internal`
    int rule_count;
    RuleKernels formula;  ///< of any program, with the kernels of all sets of slots at the first
    /// Adds the squares of (unscale * grad + accumulated) to `sum_lanes` sums.
    void (*sum_of_squares)(const Block&, const Factors& unscale, std::size_t bytes_ahead,
                           double* sums);
    /// For a tile at a time and where an error of a few units in the last place does no harm: the
    /// sum of squares of (unscale * grad + accumulated), and those of elements and of their
    /// distance from what they were; null where it is not wanted.
    double (*watch_gradient)(const Block&, const Factors& unscale);
    void (*watch_change)(const void* before, const void* after, std::size_t count, double* change,
                         double* result);
    Copy gather[format_count];   ///< from a format
    Copy scatter[format_count];  ///< to a format
    Transpose transpose[format_count];
    const Coder* coders;  ///< of each coding; null but in float32
    /// 16 bits for each of so many elements, which stand at first, first + step and so on, and for
    /// some more.
    void (*random_bits)(std::uint32_t key, std::uint32_t first, std::uint32_t step,
                        std::size_t count, std::uint16_t* to);
    /// By the gradient's format and the number of arrays.
    Touch touch[format_count][max_touched + 1];
    bool chooses_square_roots;  ///< by the manner
    /// For tests: square roots of whole vectors of 64 bytes from estimates of their reciprocals, or
    /// from the processor's own; null where the level has none but the instruction.
    void (*fused_square_roots)(const float* x, const float* estimates, float* roots,
                               std::size_t count);
};

}  // namespace instep
