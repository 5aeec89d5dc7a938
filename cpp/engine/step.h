// One step over many arrays: blocks, threads, norms. Knows neither rules nor Python.
#pragma once

#include <vector>

#include "engine/kernels.h"
#include "engine/stream.h"

namespace instep {

/// The arrays that a kernel works on; slots follow.
enum StreamIndex { param_stream, grad_stream, average_stream, accumulated_stream, first_slot };
inline constexpr int stream_count = first_slot + max_slots;

/// One parameter array's part in a step.
struct Work {
    const Shape* shape = nullptr;
    std::size_t size = 0;
    Dtype dtype = Dtype::float32;  ///< of every stream but the gradient
    Stream streams[stream_count];
    /// Whether the gradient stream is the caller's; it may be an accumulator, or missing.
    bool raw_gradient = false;
    Update update = nullptr;
    const Coefficients* coefficients = nullptr;
    Around around;
    double clipnorm = no_clipping;
};

/// A step in the making: its parts, then its result.
struct Step {
    std::vector<Work> works;
    bool skip_nonfinite = false;
    bool wants_norm = false;
    double global_clipnorm = no_clipping;

    bool skipped = false;  ///< a gradient was not finite: nothing was changed
    double grad_norm = 0;  ///< over all arrays, before clipping; with `wants_norm`

    /// What squares are summed of: the caller's gradients, or their sums over the window.
    enum class Sum { raw, accumulated };

    /// Everything that can fail; call it before `run`.
    void reserve();
    /// Reads and writes the arrays, on as many threads as pay, and sets the result.
    void run() noexcept;

private:
    void run_thread(int thread, int team) noexcept;
    void add_squares(Sum what, int thread, int team) noexcept;
    void finish_norms(Sum what) noexcept;
    bool finite() const noexcept;
    void clip() noexcept;
    void update(int thread, int team) noexcept;

    template <class Visit>
    void for_each_share(int thread, int team, std::size_t unit, Visit visit) noexcept;

    struct Start {
        std::size_t block, element;
    };
    std::vector<Start> starts_;       ///< of each part, among the blocks and elements of all
    std::vector<double> block_sums_;  ///< of squares
    std::vector<double> norms_;       ///< of each part
    std::size_t blocks_ = 0, elements_ = 0, bytes_ = 0;
    bool norms_wanted_ = false, has_accumulated_ = false;
};

}  // namespace instep
