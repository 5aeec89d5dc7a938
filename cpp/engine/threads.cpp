#include "engine/threads.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace instep {
namespace {

/// Below this much memory traffic per thread, starting it costs more than it saves.
constexpr std::size_t bytes_per_thread = 768 * 1024;

std::atomic<bool> forked{false};

/// A positive number at the start of an environment variable, else 0. OMP_NUM_THREADS may be a
/// list, whose first entry is the outermost level.
int number_in(const char* variable) {
    const char* const text = std::getenv(variable);
    return text ? static_cast<int>(std::clamp(std::strtol(text, nullptr, 10), 0L, 1024L)) : 0;
}

int available_processors() {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

#if defined(_OPENMP)
int runtime_limit() {
    return omp_get_max_threads();
}
#else
int runtime_limit() {
    return 1;
}
#endif

struct Setting {
    std::atomic<int> count;
    /// OpenMP's own limit when the count was set. One that is lower later (threadpoolctl) holds.
    std::atomic<int> runtime_limit_then;

    Setting() {
        int initial = number_in("INSTEP_NUM_THREADS");
        if (!initial) initial = number_in("OMP_NUM_THREADS");
        if (!initial) initial = available_processors();
        set(initial);
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif
    }
    void set(int threads) {
        count = threads;
        runtime_limit_then = runtime_limit();
    }
};

Setting& setting() {
    static Setting instance;
    return instance;
}

/// Made when the module is loaded: its fork handler must be there before anyone forks.
Setting& setting_at_load = setting();

}  // namespace

int num_threads() {
#if defined(_OPENMP)
    const int limit = runtime_limit();
    const int count = setting().count;
    return limit < setting().runtime_limit_then ? std::min(count, limit) : count;
#else
    return 1;
#endif
}

void set_num_threads(int count) {
    setting().set(count);
}

int threads_for(std::size_t bytes) {
    if (bytes < 2 * bytes_per_thread || forked) return 1;
    return static_cast<int>(
        std::min<std::size_t>(bytes / bytes_per_thread, static_cast<std::size_t>(num_threads())));
}

#if defined(_OPENMP)
void parallel(int threads, void (*body)(void*, int, int), void* context) {
#pragma omp parallel num_threads(threads)
    body(context, omp_get_thread_num(), omp_get_num_threads());
}

void barrier() {
#pragma omp barrier
}

std::string threading_layer() {
    return "OpenMP " + std::to_string(_OPENMP);
}
#else
void parallel(int, void (*body)(void*, int, int), void* context) {
    body(context, 0, 1);
}

void barrier() {}

std::string threading_layer() {
    return "none";
}
#endif

}  // namespace instep
