#include "engine/threads.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "engine/fork.h"
#include "engine/processors.h"

namespace instep {
namespace {

/// Below this much memory traffic per thread, starting it costs more than it saves.
constexpr std::size_t bytes_per_thread = 768 * 1024;

/// The number at the start of a text, 0 where there is none.
int leading_number(const char* text) {
    return static_cast<int>(std::clamp(std::strtol(text, nullptr, 10), 0L, long{most_threads}));
}

/// What a variable of the environment is set to; null where it is missing or empty.
const char* setting_of(const char* variable) {
    const char* const text = std::getenv(variable);
    return text && *text ? text : nullptr;
}

/// The number of threads that the environment asks for; 0 where it does not. OMP_NUM_THREADS may be
/// a list, whose first entry is the outermost level.
int threads_in_environment() {
    if (const char* const own = setting_of("INSTEP_NUM_THREADS")) return leading_number(own);
    if (const char* const shared = setting_of("OMP_NUM_THREADS")) return leading_number(shared);
    return 0;
}

#if defined(_OPENMP)
int runtime_limit() {
    return omp_get_max_threads();
}

/// Whether the system lets so many threads run at once. OpenMP would end the process where it does
/// not, so this tries before that starts more than ever before for this thread, which keeps them.
bool can_run(int threads) noexcept {
    thread_local int most = 1;
    if (threads <= most) return true;
    std::vector<std::thread> trials;
    std::atomic<bool> all_run{false};
    bool can = true;
    try {
        trials.reserve(static_cast<std::size_t>(threads));
        while (trials.size() < static_cast<std::size_t>(threads - 1))
            trials.emplace_back([&all_run] { all_run.wait(false); });
    } catch (const std::exception&) {
        can = false;
    }
    all_run = true;
    all_run.notify_all();
    for (std::thread& trial : trials) trial.join();
    if (can) most = threads;
    return can;
}
#else
int runtime_limit() {
    return 1;
}

bool can_run(int) {
    return true;
}
#endif

struct Setting {
    std::atomic<int> count{0};  ///< 0: as many as there are processors
    /// OpenMP's own limit when a count was set. One that is lower (threadpoolctl) holds.
    std::atomic<int> runtime_limit_then{0};

    Setting() { set(threads_in_environment()); }
    void set(int threads) {
        count = threads;
        // Where it is set under a lower limit, that one is over some time, and may come again.
        runtime_limit_then = std::max<int>(runtime_limit_then, runtime_limit());
    }
};

Setting& setting() {
    static Setting instance;
    return instance;
}

}  // namespace

int num_threads() {
#if defined(_OPENMP)
    const int limit = runtime_limit();
    int count = setting().count;
    // Where OpenMP puts threads in places, it has put this one, too, in one of all that it has.
    if (!count && omp_get_proc_bind() != omp_proc_bind_false)
        count = within_quota(omp_get_num_procs());
    if (!count) count = available_processors();
    return limit < setting().runtime_limit_then ? std::min(count, limit) : count;
#else
    return 1;
#endif
}

void read_environment() {
    setting();
    available_processors();
    const char* const text = setting_of("INSTEP_NUM_THREADS");
    if (!text) return;
    const int count = leading_number(text);
    if (count < 1 || std::to_string(count) != text)
        throw std::runtime_error("INSTEP_NUM_THREADS=" + std::string(text) +
                                 ": expected a number of threads from 1 to " +
                                 std::to_string(most_threads));
}

void set_num_threads(int count) {
    setting().set(count);
}

int threads_for(std::size_t bytes) {
    if (bytes < 2 * bytes_per_thread || fork_count() > 0) return 1;
    const int threads = static_cast<int>(
        std::min<std::size_t>(bytes / bytes_per_thread, static_cast<std::size_t>(num_threads())));
    return can_run(threads) ? threads : 1;
}

std::string threading_layer() {
#if defined(_OPENMP)
    return "OpenMP " + std::to_string(_OPENMP);
#else
    return "none";
#endif
}

}  // namespace instep
