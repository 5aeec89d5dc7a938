#include "engine/fork.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace instep {
namespace {

std::atomic<std::int64_t> in_flight{0};
std::atomic<bool> forking{false};
/// The thread that each fork left, of those between the process that loaded instep and this one.
std::vector<std::thread::id> survivors;

#if defined(__unix__) || defined(__APPLE__)
void before_fork() {
    while (forking.exchange(true)) pause();  // another thread forks
    while (in_flight > 0) pause();
}

void after_fork_in_parent() {
    forking = false;
}

void after_fork_in_child() {
    survivors.push_back(std::this_thread::get_id());
    forking = false;
}

/// When the module is loaded: nobody must fork before.
[[maybe_unused]] const int handlers =
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
#endif

}  // namespace

InFlight::InFlight() noexcept {
    for (;;) {
        ++in_flight;
        if (!forking) return;
        --in_flight;
        while (forking) pause();
    }
}

InFlight::~InFlight() {
    --in_flight;
}

std::uint64_t fork_count() noexcept {
    return survivors.size();
}

bool goes_on(std::thread::id thread, std::uint64_t then) {
    return std::all_of(survivors.begin() + static_cast<std::ptrdiff_t>(then), survivors.end(),
                       [&](std::thread::id survivor) { return survivor == thread; });
}

void pause() noexcept {
    std::this_thread::sleep_for(std::chrono::microseconds(20));
}

}  // namespace instep
