// Updates of some of an array's rows, and how the others get what they have missed.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/work.h"

namespace instep {

/// An update that rows without a gradient of their own have missed. They are to have it, as if
/// their gradient had been zero.
struct Missed {
    Call call;
    unsigned used = 0, written = 0;  ///< streams
    Factors factors;                 ///< on that gradient: they have a sign
    std::uint32_t noise_key = 0;
    bool rests_at_zero = false;  ///< it leaves rows alone whose state is zero
};

/// The updates that rows of an array have missed; until they have them, what is in their memory is
/// of an earlier time.
class MissedUpdates {
public:
    /// So many at most: then rows have them before the next update.
    static constexpr std::size_t most = 1024;

    bool any() const { return !missed_.empty(); }
    /// Whether there is a row that has not had all of them yet.
    bool any_row() const;
    bool is_full() const { return missed_.size() >= most; }
    /// Makes room for one more, in an array of so many rows. Can fail.
    void reserve(std::size_t rows);
    /// All rows miss this one but those that `update` was told to update meanwhile. There is room.
    void add(const Missed& update) noexcept;

    /// Lets all rows have what they have missed, on as many threads as pay.
    void settle(const Layout& layout) noexcept;
    /// The same for these rows, ascending.
    void settle(const Layout& layout, const std::vector<std::uint32_t>& ids) noexcept;

private:
    friend class RowClock;

    template <class RowAt>
    void catch_up(const Layout& layout, std::size_t rows, RowAt row_at) noexcept;

    std::vector<Missed> missed_;
    std::vector<std::uint32_t> had_;  ///< of each row, how many of those
    std::size_t last_that_acts_ = 0;  ///< the number of those up to the last one for all rows
};

/// Whether an update with a gradient of zero changes no parameter whose state is zero.
bool rests_at_zero(const Plan& plan, Precision precision);

/// Updates the rows numbered [first, last) among the work's, of so many elements each. Before that
/// they get what they have missed.
void update_rows(const Operation& operation, const Work& work, std::size_t first,
                 std::size_t last) noexcept;

}  // namespace instep
