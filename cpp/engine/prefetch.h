// How far ahead memory is fetched into the cache: what pays differs from processor to processor,
// and with where arrays lie, so each kind of passage over memory finds out for itself.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "engine/choice.h"
#include "engine/formats.h"
#include "engine/pieces.h"

namespace instep {

/// A passage over memory, by what decides about fetching ahead.
struct Passage {
    Precision precision;
    std::size_t arrays, elements, bytes;
    int threads;
};

/// To be called when the module is loaded. Throws std::runtime_error where INSTEP_PREFETCH is no
/// number of bytes.
void read_prefetch_setting();

/// The distance that it sets for all passages, in bytes.
std::optional<std::size_t> prefetch_setting();

/// What has been found out for a kind of passage.
struct Finding {
    Precision precision;
    int streams;
    std::size_t least_bytes;  ///< of all arrays together; the next kind has four times as many
    bool small_arrays, several_threads;
    std::vector<std::size_t> distances;  ///< in bytes; 0: without fetching
    std::vector<float> seconds_per_byte;
    std::size_t chosen;  ///< one of the distances
};
std::vector<Finding> prefetch_findings();

/// Fetching ahead during one passage.
class Prefetch {
public:
    /// `may_measure`: whether times tell something, as those of memory never used before don't.
    Prefetch(const Passage& passage, bool may_measure) noexcept;

    /// Calls pass(bytes ahead) for a piece, one of so many.
    template <class Pass>
    void run(Piece piece, bool is_caller, const Pass& pass) noexcept {
        if (!is_caller) return pass(distance_of(choice_ ? choice_->chosen() : 0));
        const std::size_t distance = distance_of(trial_.next());
        if (!trial_.measures()) return pass(distance);
        const auto start = std::chrono::steady_clock::now();
        pass(distance);
        const std::chrono::duration<float> time = std::chrono::steady_clock::now() - start;
        trial_.tell(time.count() * static_cast<float>(piece.count) / bytes_);
    }

private:
    static std::size_t distance_of(int way) noexcept;

    Choice* choice_;
    Trial trial_;
    float bytes_;
};

}  // namespace instep
