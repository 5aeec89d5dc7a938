// Which of a few ways of doing the same is the fastest, found out on the work itself.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace instep {

/// A choice among ways 0, 1, ... Trials come now and then: the pieces of work of one thread go each
/// way in turns, and the way with the least median of their times is taken from then on, provided
/// that it beats the present one clearly.
class Choice {
public:
    static constexpr int most_ways = 4;
    static constexpr int samples = 9;  ///< of each way in a trial; an odd number
    static constexpr int rest = 40;    ///< so many times a trial's pieces lie between two of them
    static constexpr float clearly = 0.98f;

    int chosen() const noexcept { return chosen_.load(std::memory_order_relaxed); }
    /// How long each way took in the last trial; zeros before the first one's end.
    std::array<float, most_ways> times() const noexcept;

private:
    friend class Trial;
    void conclude(int ways) noexcept;

    std::atomic<int> chosen_{0};
    std::atomic<int> until_trial_{0};  ///< pieces
    std::atomic<bool> is_taken_{false};
    std::array<std::atomic<float>, most_ways> times_{};

    // Of the trial under way: for who has taken it.
    int told_ = 0;
    std::array<std::array<float, samples>, most_ways> samples_{};
};

/// One thread's part in a choice while it works on a few pieces: it measures if it may, a trial is
/// due and no other thread is at it; else it takes what was chosen. Without a choice, way 0.
class Trial {
public:
    Trial(Choice* choice, int ways, bool may_measure = true) noexcept;
    ~Trial();
    Trial(const Trial&) = delete;
    Trial& operator=(const Trial&) = delete;

    bool measures() const noexcept { return measures_; }
    /// The way of the next piece; to be asked once for each.
    int next() noexcept;
    /// How long that piece took, for as much work as others took.
    void tell(float time) noexcept;

private:
    Choice* choice_;
    int ways_;
    bool measures_;
    int pieces_ = 0;
};

}  // namespace instep
