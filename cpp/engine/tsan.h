// Tells ThreadSanitizer of the order that OpenMP's runtime brings about, which it does not see.
#pragma once

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define INSTEP_TSAN
#endif
#elif defined(__SANITIZE_THREAD__)
#define INSTEP_TSAN
#endif

#if defined(INSTEP_TSAN)
#include <sanitizer/tsan_interface.h>

#include <utility>

/// For a function whose team reads its variables before `enter`.
#define INSTEP_UNSEEN __attribute__((no_sanitize_thread))
#else
#define INSTEP_UNSEEN
#endif

namespace instep::tsan {

#if defined(INSTEP_TSAN)
/// What happened before `release` happened before what comes after `acquire` of the same address.
inline void release(void* region) {
    __tsan_release(region);
}
inline void acquire(void* region) {
    __tsan_acquire(region);
}

/// Addresses for this thread's next barrier and the one after that, where another thread may be
/// before this one has left the first.
inline thread_local char* barriers[2];

inline void enter(void* region) {
    acquire(region);
    barriers[0] = static_cast<char*>(region) + 8;
    barriers[1] = barriers[0] + 8;
}
inline void arrive() {
    release(barriers[0]);
}
inline void leave() {
    acquire(barriers[0]);
    std::swap(barriers[0], barriers[1]);
}
#else
inline void release(void*) {}
inline void acquire(void*) {}
inline void enter(void*) {}
inline void arrive() {}
inline void leave() {}
#endif

}  // namespace instep::tsan
