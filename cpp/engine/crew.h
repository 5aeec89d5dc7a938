// Threads that work beside the caller: who is late or busy elsewhere holds nobody up.
#pragma once

#include <cstddef>

#include "engine/pieces.h"

namespace instep {

/// Calls body(context, piece, is_caller) for each of so many pieces, on up to `threads` threads,
/// and returns when all are done. Each thread begins with a share of neighbours, and then takes
/// over from those behind; the caller waits for pieces that others are at, not for threads.
void share_out(int threads, std::size_t pieces,
               void (*body)(void* context, Piece piece, bool is_caller), void* context) noexcept;

/// The same with a function object.
template <class Body>
void for_each_piece(int threads, std::size_t pieces, const Body& body) {
    if (threads == 1) {
        for (std::size_t k = 0; k < pieces; ++k) body(Piece{k, pieces}, true);
        return;
    }
    const auto call = [](void* context, Piece piece, bool is_caller) {
        (*static_cast<const Body*>(context))(piece, is_caller);
    };
    share_out(threads, pieces, call, const_cast<Body*>(&body));
}

}  // namespace instep
