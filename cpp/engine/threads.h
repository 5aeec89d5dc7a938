// How many threads work, and the parallel region.
#pragma once

#include <cstddef>
#include <string>

#include "engine/share.h"

namespace instep {

/// The most threads that a step uses: `set_num_threads`, else INSTEP_NUM_THREADS, else
/// OMP_NUM_THREADS, else the processors that this process may run on.
int num_threads();
inline constexpr int most_threads = 1024;
void set_num_threads(int count);
/// To be called when the module is loaded: before anybody lowers OpenMP's own limit, and while
/// reading files may fail. Throws std::runtime_error where INSTEP_NUM_THREADS is no number of
/// threads.
void read_environment();

/// Threads worth starting for a step over this many bytes; 1 where the system refuses them, and in
/// a forked child, whose OpenMP runtime would hang.
int threads_for(std::size_t bytes);

/// Runs body(context, thread, team) on up to `threads` threads at once, `team` of them in fact, and
/// returns when all have.
void run_team(int threads, void (*body)(void* context, int thread, int team), void* context);
/// Calls body(member) that way; without others for a single thread.
template <class Body>
void parallel(int threads, const Body& body) {
    if (threads == 1) return body(Member{0, 1});
    const auto call = [](void* context, int thread, int team) {
        (*static_cast<const Body*>(context))(Member{thread, team});
    };
    run_team(threads, call, const_cast<Body*>(&body));
}
/// Inside `parallel` with a team of more than one: waits for all of them.
void barrier();

/// "OpenMP 201511", or "none" in a build without it.
std::string threading_layer();

}  // namespace instep
