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

/// For a function whose team reads its variables before `acquire`.
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
#else
inline void release(void*) {}
inline void acquire(void*) {}
#endif

}  // namespace instep::tsan
