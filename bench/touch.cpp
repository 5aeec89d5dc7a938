// The limit of the machine for an Adam step: its seven streams (p, g, m and v are read; p, m and v
// are written) with one addition each, called by peers.py through ctypes.

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <numeric>

namespace {

using Vector [[gnu::vector_size(__BIGGEST_ALIGNMENT__)]] = float;

constexpr std::size_t width = sizeof(Vector) / sizeof(float);
constexpr std::size_t line = 64 / sizeof(float);
constexpr std::size_t ahead = 512;
constexpr std::size_t worth_threads = 32768;

template <typename T>
T load(const float* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <typename T>
void stream(float* p, const float* g, float* m, float* v) {
    // All loads come before the first store: the compiler may not reorder them by itself.
    const T gradient = load<T>(g);
    const T p_new = load<T>(p) + gradient, m_new = load<T>(m) + gradient,
            v_new = load<T>(v) + gradient;
    std::memcpy(p, &p_new, sizeof p_new);
    std::memcpy(m, &m_new, sizeof m_new);
    std::memcpy(v, &v_new, sizeof v_new);
}

template <bool fetches>
void touch_range(float* p, const float* g, float* m, float* v, std::size_t begin, std::size_t end) {
    std::size_t i = begin;
    for (; i + line <= end; i += line) {
        if (fetches) {
            const std::size_t next = std::min(i + ahead, end - 1);
            __builtin_prefetch(p + next);
            __builtin_prefetch(g + next);
            __builtin_prefetch(m + next);
            __builtin_prefetch(v + next);
        }
        for (std::size_t j = i; j < i + line; j += width)
            stream<Vector>(p + j, g + j, m + j, v + j);
    }
    for (; i < end; ++i) stream<float>(p + i, g + i, m + i, v + i);
}

// The arrays, and their elements counted from the first array's first to the last array's last.
struct Arrays {
    float* const* p;
    const float* const* g;
    float* const* m;
    float* const* v;
    const std::size_t* sizes;
    std::size_t count;

    std::size_t total() const { return std::accumulate(sizes, sizes + count, std::size_t{0}); }

    template <bool fetches>
    void touch(std::size_t begin, std::size_t end) const {
        std::size_t start = 0;
        for (std::size_t k = 0; k < count && start < end; start += sizes[k++]) {
            const std::size_t first = std::max(begin, start) - start;
            const std::size_t last = std::min(end - start, sizes[k]);
            if (first < last) touch_range<fetches>(p[k], g[k], m[k], v[k], first, last);
        }
    }
};

// Touches all elements `repeats` times.
template <bool fetches>
void touch_all(const Arrays& arrays, int threads, std::size_t repeats) {
    const std::size_t total = arrays.total();
    for (std::size_t r = 0; r < repeats; ++r) {
        if (threads < 2 || total < worth_threads) {
            arrays.touch<fetches>(0, total);
            continue;
        }
#pragma omp parallel num_threads(threads)
        {
            const std::size_t rank = omp_get_thread_num(), team = omp_get_num_threads();
            const std::size_t lines = total / line;
            const std::size_t end = rank + 1 < team ? lines * (rank + 1) / team * line : total;
            arrays.touch<fetches>(lines * rank / team * line, end);
        }
    }
}

}  // namespace

extern "C" void touch(float* const* p, const float* const* g, float* const* m, float* const* v,
                      const std::size_t* sizes, std::size_t count, int threads,
                      std::size_t repeats) {
    touch_all<true>({p, g, m, v, sizes, count}, threads, repeats);
}

extern "C" void touch_plain(float* const* p, const float* const* g, float* const* m,
                            float* const* v, const std::size_t* sizes, std::size_t count,
                            int threads, std::size_t repeats) {
    touch_all<false>({p, g, m, v, sizes, count}, threads, repeats);
}
