// The machine's limit, for benchmarks: an update's memory traffic with one addition per array.
#pragma once

#include "kernels/update.h"

namespace instep::INSTEP_LEVEL {

template <class T, class Stored, int arrays>
static void touch(void* const* to, const void* from, std::size_t count, std::size_t bytes_ahead) {
    using P = Pack<T, 2>;
    const Stored* const grad = static_cast<const Stored*>(from);
    T* written[arrays];
    for (int k = 0; k < arrays; ++k) written[k] = static_cast<T*>(to[k]);

    const std::size_t ahead = bytes_ahead / sizeof(T);
    std::size_t i = 0;
    for (; i + P::lanes <= count; i += P::lanes) {
        if (ahead) {
            fetch<P::lanes>(grad + i + ahead);
            for (int k = 0; k < arrays; ++k) fetch<P::lanes>(written[k] + i + ahead);
        }
        const P g = P::load(grad + i);
        P x[arrays];
        for (int k = 0; k < arrays; ++k) x[k] = P::load(written[k] + i) + g;
        for (int k = 0; k < arrays; ++k) x[k].store(written[k] + i);
    }
    for (; i < count; ++i)
        for (int k = 0; k < arrays; ++k) written[k][i] += read_one<T>(grad + i);
}

}  // namespace instep::INSTEP_LEVEL
