// How many threads work.
#pragma once

#include <cstddef>
#include <string>

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

/// "OpenMP 201511", or "none" in a build without it.
std::string threading_layer();

}  // namespace instep
