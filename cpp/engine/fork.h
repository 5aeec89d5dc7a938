// Forks wait for steps in flight, so that a child never sees half of one.
#pragma once

#include <cstdint>
#include <thread>

namespace instep {

/// While one of these lives, arrays are being written and a fork waits for it; the next one waits
/// for a fork under way. Whoever holds it must neither fork nor wait for Python's lock, which the
/// forking thread may have.
class InFlight {
public:
    InFlight() noexcept;
    ~InFlight();
    InFlight(const InFlight&) = delete;
    InFlight& operator=(const InFlight&) = delete;
};

/// How many forks there have been between the process that loaded instep and this one.
std::uint64_t fork_count() noexcept;

/// Whether a thread goes on in this process, that was there when there had been so many forks. Of
/// the threads of a process that forks only the one that does so goes on in the child.
bool goes_on(std::thread::id thread, std::uint64_t since);

/// Waits a moment for another thread.
void pause() noexcept;

}  // namespace instep
