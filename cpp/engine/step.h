// One step over many arrays: blocks, threads, norms. Knows neither rules nor Python.
#pragma once

#include <vector>

#include "engine/kernels.h"
#include "engine/stream.h"

namespace instep {

/// What arrays that are updated alike have in common in a step.
struct Plan {
    const RuleKernels* rule = nullptr;
    Update update = nullptr;
    std::size_t array = 0;  ///< one of those
    bool is_given = true;   ///< their gradients are the caller's
    bool has_gradient = true;
    Around around;
    Coefficients coefficients;
    double clipnorm = no_clipping;
    Measure measure = nullptr;      ///< where the update needs sums
    double scalars[max_scalars]{};  ///< of a plan's only array, as they will be after the step
};

/// Sets the coefficients from the numbers of the step and from `around`.
void prepare(Plan& plan, Dtype dtype, double learning_rate, std::int64_t step,
             const double* hyperparameters);

/// Updates one array of contiguous streams, on as many threads as pay.
void update_array(const Plan& plan, const Block& block, Dtype dtype) noexcept;

/// One parameter array's part in a step.
struct Work {
    Block block;  ///< all of its elements
    Stream grad;  ///< the caller's, or an accumulator; may be missing
    const Layout* layout;
    std::size_t plan;    ///< index into `Step::plans`
    std::size_t first;   ///< of its elements among those of all parts
    unsigned buffered;   ///< the streams that kernels can't read as they are
    StreamIndex target;  ///< what is updated: the parameter, or the accumulator
    Dtype dtype;
    bool raw_gradient;  ///< whether the gradient is the caller's

    Work(const Layout& arrays, StreamIndex what, unsigned streams, const Stream& gradient,
         bool is_raw, std::size_t its_plan, std::size_t first_element);
    const Stream& stream(int index) const {
        if (index == grad_stream) return grad;
        return layout->streams[index == param_stream ? target : index];
    }
};

/// A step in the making: its parts, then its result.
struct Step {
    std::vector<Plan> plans;
    std::vector<Work> works;
    bool skip_nonfinite = false;
    bool wants_norm = false;
    double global_clipnorm = no_clipping;

    bool skipped = false;  ///< a gradient was not finite: nothing was changed
    double grad_norm = 0;  ///< over all arrays, before clipping; with `wants_norm`

    /// What squares are summed of: the caller's gradients, or their sums over the window.
    enum class Sum { raw, accumulated };

    void clear();
    /// Adds an array whose `streams` are updated by the plan added last.
    void add(const Layout& layout, StreamIndex target, unsigned streams, const Stream& grad,
             bool raw_gradient);
    /// Everything that can fail; call it before `run`.
    void reserve();
    /// Reads and writes the arrays, on as many threads as pay, and sets the result.
    void run() noexcept;

private:
    void run_thread(int thread, int team) noexcept;
    void add_squares(Sum what, int thread, int team) noexcept;
    void finish_norms(Sum what) noexcept;
    void measure(int thread, int team) noexcept;
    void complete() noexcept;
    bool finite() const noexcept;
    void clip() noexcept;
    void update(int thread, int team) noexcept;
    void update_range(const Work& work, std::size_t first, std::size_t last,
                      const Block& after) noexcept;
    void update_rows(const Work& work, const Rows& rows, std::size_t first, std::size_t last,
                     const Block& after) noexcept;

    template <class Unit, class Visit>
    void for_each_share(int thread, int team, Unit unit_of, Visit visit) noexcept;

    std::size_t elements_ = 0, bytes_ = 0;
    std::vector<std::size_t> first_blocks_;  ///< of each part, and their number
    std::vector<double> block_sums_;         ///< of squares
    std::vector<double> norms_;              ///< of each part
    std::vector<double> rule_sums_;          ///< of each block, `max_sums` of them
    bool norms_wanted_ = false, has_accumulated_ = false, measures_ = false;
};

}  // namespace instep
