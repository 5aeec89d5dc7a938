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

/// How many forks lie between the process that loaded instep and this one: 0 there, 1 in its child,
/// 2 in a child of that.
std::uint64_t fork_count() noexcept;

/// Whether a thread still runs in this process. It was seen when the count of forks was `then`; at
/// each fork since, of all threads only the one that forked goes on in the child.
bool goes_on(std::thread::id thread, std::uint64_t then);

/// Waits a moment for another thread.
void pause() noexcept;

}  // namespace instep
