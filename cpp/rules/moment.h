// Where an array stands when its update is prepared.
#pragma once

#include <cstdint>

namespace instep {

struct Moment {
    double learning_rate = 0;
    std::int64_t step = 1;  ///< the update's count in formulas
    bool first = true;      ///< no update was counted before
    bool begins = true;     ///< nor any with the optional slots that the array has now
};

}  // namespace instep
