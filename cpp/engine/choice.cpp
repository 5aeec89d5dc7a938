#include "engine/choice.h"

#include <algorithm>

namespace instep {

std::array<float, Choice::most_ways> Choice::times() const noexcept {
    std::array<float, most_ways> result{};
    for (std::size_t way = 0; way < result.size(); ++way)
        result[way] = times_[way].load(std::memory_order_relaxed);
    return result;
}

void Choice::conclude(int ways) noexcept {
    for (std::size_t way = 0; way < static_cast<std::size_t>(ways); ++way) {
        auto middle = samples_[way].begin() + samples / 2;
        std::nth_element(samples_[way].begin(), middle, samples_[way].end());
        times_[way].store(*middle, std::memory_order_relaxed);
    }
    const std::array<float, most_ways> time = times();
    const auto best = std::min_element(time.begin(), time.begin() + ways) - time.begin();
    if (time[static_cast<std::size_t>(best)] < clearly * time[static_cast<std::size_t>(chosen())])
        chosen_.store(static_cast<int>(best), std::memory_order_relaxed);
    told_ = 0;
    until_trial_.store(rest * samples * ways, std::memory_order_relaxed);
}

Trial::Trial(Choice* choice, int ways, bool may_measure) noexcept
    : choice_(choice),
      ways_(ways),
      measures_(choice && may_measure &&
                choice->until_trial_.load(std::memory_order_relaxed) <= 0 &&
                !choice->is_taken_.exchange(true, std::memory_order_acquire)) {}

Trial::~Trial() {
    if (!choice_) return;
    if (measures_)
        choice_->is_taken_.store(false, std::memory_order_release);
    else if (pieces_)  // a count that another thread's overtakes is as good
        choice_->until_trial_.store(choice_->until_trial_.load(std::memory_order_relaxed) - pieces_,
                                    std::memory_order_relaxed);
}

int Trial::next() noexcept {
    if (!choice_) return 0;
    if (!measures_) ++pieces_;
    return measures_ ? choice_->told_ % ways_ : choice_->chosen();
}

void Trial::tell(float time) noexcept {
    if (!measures_) return;
    const auto way = static_cast<std::size_t>(choice_->told_ % ways_);
    const auto turn = static_cast<std::size_t>(choice_->told_ / ways_);
    choice_->samples_[way][turn] = time;
    if (++choice_->told_ < ways_ * Choice::samples) return;
    choice_->conclude(ways_);
    choice_->is_taken_.store(false, std::memory_order_release);
    measures_ = false;
}

}  // namespace instep
