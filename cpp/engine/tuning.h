// How kernels go about their work: what is fastest differs from processor to processor, and with
// where arrays lie, so each kind of passage over memory finds out for itself.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "engine/choice.h"
#include "engine/kernels.h"
#include "engine/pieces.h"

namespace instep {

/// A passage over memory, by what decides about the manner.
struct Passage {
    Precision precision;
    std::size_t arrays, elements, bytes;
    bool watched = false;  ///< sums are taken on the way
};

/// To be called when the module is loaded. Throws std::runtime_error where INSTEP_PREFETCH is no
/// number of bytes.
void read_prefetch_setting();
/// The distance of fetching ahead that it sets for all passages, in bytes.
std::optional<std::size_t> prefetch_setting();

/// The choices for passages of a kind, by one thread and by several; null where it does not matter.
Choice* choices_for(const Passage& passage) noexcept;

/// What has been found out for passages of a kind.
struct Finding {
    Precision precision;
    int streams;
    std::size_t least_bytes;  ///< of all arrays together; the next kind has four times as many
    bool small_arrays, watched, several_threads;
    std::vector<Manner> manners;
    std::vector<float> seconds_per_byte;  ///< of each
    std::size_t chosen;
};
std::vector<Finding> findings();

/// The manner of one passage.
class Tuning {
public:
    /// `may_measure`: whether times tell something, as those of memory never used before don't.
    Tuning(Choice* choices, const Passage& passage, int threads, bool may_measure) noexcept
        : choice_(choices ? choices + (threads > 1) : nullptr),
          trial_(choice_, ways(passage.precision), may_measure),
          bytes_(static_cast<float>(passage.bytes)) {}

    /// Calls pass(manner) for a piece.
    template <class Pass>
    void run(Piece piece, bool is_caller, const Pass& pass) noexcept {
        if (!is_caller) return pass(manner(choice_ ? choice_->chosen() : 0));
        const Manner& now = manner(trial_.next());
        if (!trial_.measures()) return pass(now);
        const auto start = std::chrono::steady_clock::now();
        pass(now);
        const std::chrono::duration<float> time = std::chrono::steady_clock::now() - start;
        trial_.tell(time.count() * static_cast<float>(piece.count) / bytes_);
    }

    /// How many manners there are to choose from.
    static int ways(Precision precision) noexcept;

private:
    static const Manner& manner(int way) noexcept;

    Choice* choice_;
    Trial trial_;
    float bytes_;
};

}  // namespace instep
