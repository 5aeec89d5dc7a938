// One step over many arrays, in phases. Knows neither rules nor Python.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "engine/choice.h"
#include "engine/norms.h"
#include "engine/pieces.h"
#include "engine/watching.h"
#include "engine/work.h"

namespace instep {

/// A pass of all threads over memory, and a conclusion that one of them draws from it alone. A step
/// goes through those that it needs, in this order.
enum class Phase {
    raw_squares,  ///< of the caller's gradients; whether they are finite
    squares,      ///< of gradients over an accumulation window; factors that clip
    tell,         ///< gradients, to the parts of slots that are kept in parts
    renew,        ///< those parts
    sums,         ///< that rules need of whole arrays; what they make of them
    lend,         ///< gradients, clipped and so on, go to slots; then the step pauses for others
    update,       ///< of parameters and state
};

const char* name_of(Phase phase);

/// What a step waits for that somebody else is to do.
enum class Pause {
    none,      ///< it has ended
    elements,  ///< those of the next span are to be brought into their places
    sums,      ///< those of blocks that others have are to be added to those of `shared()`
    lent,      ///< updates are to be made of the gradients that were lent
};

/// A step in the making: its parts, then its result.
class Step {
public:
    std::vector<Plan> plans;
    std::vector<Work> works;
    bool skip_nonfinite = false;
    bool wants_norm = false;
    double global_clipnorm = no_limit;
    unsigned watch = 0;  ///< a set of `Watch`
    /// Others step with other parts of the same arrays: sums of blocks are theirs, too.
    bool is_shared = false;

    bool skipped = false;  ///< a gradient was not finite: nothing was changed
    /// Over all arrays, before clipping; with `wants_norm`, or where it is watched.
    double grad_norm = 0;
    std::vector<Watched> watched;  ///< of each part

    void clear();
    /// Adds an array whose `streams` are updated by the plan added last.
    void add(const Layout& layout, StreamIndex target, unsigned streams, const Stream& grad,
             bool raw_gradient, const TouchedRows* touched = nullptr);
    /// Elements come into memory a span at a time, each of which ends before an element of an
    /// array: for every phase, from the first span on.
    struct Border {
        const Layout* array;
        std::size_t element;
    };
    void set_spans(const std::vector<Border>& ends);
    /// Everything that can fail; call it before `advance`.
    void reserve();
    /// Goes through the next phases, on as many threads as pay, up to a pause or to the end, which
    /// sets the result. During a pause somebody else may read what the pass has left, and change
    /// it.
    Pause advance() noexcept;

    // During pauses.
    Phase phase() const { return phases_[next_phase_]; }
    std::size_t span() const { return span_; }
    /// Whether the phase looks at gradients.
    bool reads_gradients() const { return phase() != Phase::update || !has_taken_; }
    struct Numbers {
        double* first;
        std::size_t count;
    };
    Numbers shared() noexcept;

private:
    void pass(Phase phase) noexcept;
    void pass(Phase phase, Piece piece, const Manner& manner) noexcept;
    void conclude(Phase phase) noexcept;
    /// How many sums there are to be shared after a phase.
    int shared_count(Phase phase) const noexcept;

    void add_squares(Squares what, Piece piece, const Manner& manner) noexcept;
    void finish_norms() noexcept;
    void measure(Piece piece, const Manner& manner) noexcept;
    void complete() noexcept;
    template <class SumOf>
    double norm_of(std::size_t part, SumOf sum_of) const noexcept;
    bool finite() const noexcept;
    void clip() noexcept;
    void tell_parts(Piece piece, const Manner& manner) noexcept;
    void renew_parts(Piece piece) noexcept;
    void run_kernels(Phase phase, Piece piece, const Manner& manner) noexcept;
    void run_watched_kernels(Phase phase, Piece piece, const Manner& manner) noexcept;
    void finish_watching() noexcept;
    void tell_nonfinite() noexcept;
    bool counts_nonfinite() const { return skip_nonfinite && watch & watch_nonfinite; }

    void read_parts();

    Span span_elements() const;
    std::size_t block_of(std::size_t part, std::size_t start) const;
    template <class Unit, class Visit>
    void for_each_part(Piece piece, Unit unit_of, Visit visit) noexcept;

    std::array<Phase, 7> phases_{};
    std::size_t phase_count_ = 0, next_phase_ = 0, span_ = 0;
    int shared_ = 0;                      ///< sums of the phase that were handed out
    bool is_brought_ = false;             ///< the span is there
    bool has_taken_ = false;              ///< updates that others have made
    std::vector<std::size_t> span_ends_;  ///< counted as `starts_`; empty: all at once
    bool has_run_ = false;                ///< some step did: memory is there
    std::vector<std::size_t> starts_{0};  ///< elements before each part, and of all
    std::size_t bytes_ = 0, gradient_bytes_ = 0;
    std::array<std::optional<Choice*>, 2> choices_;  ///< of passages over all, over gradients
    std::vector<std::size_t> first_blocks_;          ///< of each part's array, and their number
    /// Of squares; negative where that is infinite: then it is the norm.
    std::vector<double> block_sums_;
    std::vector<double> norms_;              ///< of each part
    std::vector<double> rule_sums_;          ///< of each block, `max_sums` of them
    std::vector<WatchedSums> watched_sums_;  ///< of each block
    std::vector<SeenParts> parts_;           ///< of each array that has a slot in parts
    bool has_accumulated_ = false, measures_ = false, lends_ = false, has_parts_ = false;
    bool has_touched_ = false;  ///< of some array only some rows are updated
    bool has_norms_ = false;    ///< of gradients, from a phase of their own
};

/// Updates one array of contiguous streams, on as many threads as pay; where a source is given, the
/// parameter is what stands there.
void update_array(const Call& update, const Block& block, Precision precision,
                  const void* source) noexcept;

}  // namespace instep
