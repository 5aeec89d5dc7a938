// The machine's limit, for benchmarks: an update's memory traffic with one addition per array.
#pragma once

#include "engine/update.h"

namespace instep::INSTEP_LEVEL {

template <class T, class G, int arrays>
static void touch(void* const* to, const void* from, std::size_t count) {
    using P = Pack<T, 2>;
    typedef G Given __attribute__((vector_size(P::register_lanes * sizeof(G))));
    const G* const grad = static_cast<const G*>(from);
    T* written[arrays];
    for (int k = 0; k < arrays; ++k) written[k] = static_cast<T*>(to[k]);
    const auto given = [&](std::size_t i) INSTEP_INLINE_LAMBDA {
        Given g;
        __builtin_memcpy(&g, grad + i, sizeof g);
        return __builtin_convertvector(g, Vector<T>);
    };

    std::size_t i = 0;
    for (; i + P::lanes <= count; i += P::lanes) {
        fetch<P::lanes>(grad + i + fetch_distance<G>);
        P g;
        g.part[0] = given(i);
        g.part[1] = given(i + P::register_lanes);
        P x[arrays];
        for (int k = 0; k < arrays; ++k) {
            fetch<P::lanes>(written[k] + i + fetch_distance<T>);
            x[k] = P::load(written[k] + i) + g;
        }
        for (int k = 0; k < arrays; ++k) x[k].store(written[k] + i);
    }
    for (; i < count; ++i)
        for (int k = 0; k < arrays; ++k) written[k][i] += static_cast<T>(grad[i]);
}

}  // namespace instep::INSTEP_LEVEL
