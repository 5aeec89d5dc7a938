// How many processors this process may use.
#pragma once

#include <istream>
#include <optional>
#include <string>

namespace instep {

/// The processors that this process may run on, or fewer where control groups limit its time.
int available_processors();

/// So many, or fewer where control groups limit this process's time.
int within_quota(int count);

/// The one that this thread runs on; negative where the system does not tell.
int this_processor() noexcept;

/// Moves this thread to another of those that it may run on, now; nothing happens where there is
/// none, or the system does not let it.
void leave_processor(int processor) noexcept;

/// The processors' worth of time that control groups of either version grant a process, rounded up,
/// from what is in /proc/self/cgroup and /proc/self/mountinfo; nothing where there is no limit. The
/// groups' own files are below `root`.
std::optional<int> quota(std::istream& cgroup, std::istream& mountinfo, const std::string& root);

}  // namespace instep
