// Subnormal numbers count as zero while one of these lives, so that they cost nothing and give the
// same bits everywhere; then the thread's own mode is back.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace instep {

class FlushSubnormals {
public:
#if defined(__SSE2__)
    FlushSubnormals() : before_(_mm_getcsr()) {
        constexpr unsigned exceptions_masked = 0x1f80, to_nearest_flush = 0x8040;
        _mm_setcsr(exceptions_masked | to_nearest_flush);
    }
    ~FlushSubnormals() { _mm_setcsr(before_); }

private:
    unsigned before_;
#elif defined(__aarch64__)
    FlushSubnormals() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        constexpr std::uint64_t flush_to_zero = 1u << 24;
        asm volatile("msr fpcr, %0" : : "r"(flush_to_zero));
    }
    ~FlushSubnormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

private:
    std::uint64_t before_;
#else
    FlushSubnormals() {}
#endif
public:
    FlushSubnormals(const FlushSubnormals&) = delete;
    FlushSubnormals& operator=(const FlushSubnormals&) = delete;
};

}  // namespace instep
