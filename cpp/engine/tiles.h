// Elements of a step's part, a tile at a time where they must go through buffers.
#pragma once

#include <algorithm>

#include "engine/fetch.h"
#include "engine/work.h"

namespace instep {

/// Calls kernel(block, next) for elements [start, start + count) of the streams in `used`, with
/// those that it can't read as they are in buffers. What it changed of a stream in `written` goes
/// back. `next` is what it may fetch ahead; after the last elements, the block given. Of arrays
/// with a slot in parts, blocks may be rows, unless that is ruled out.
template <class Kernel>
void for_each_tile(const Work& work, std::size_t start, std::size_t count, unsigned used,
                   unsigned written, const Block& after, Kernel kernel, bool by_rows = true) {
    const Precision precision = work.precision();
    Block block = part_of(work.block, precision, start, count);
    for (int s = 0; s < stream_count; ++s)
        if (!(used & bit(s))) block.data[s] = nullptr;
    const unsigned buffered = work.buffered & used;
    const bool is_copied = work.is_copied(written);
    if (!buffered && !is_copied) return kernel(block, after);
    if (const int s = work.layout->parts_stream;
        by_rows && s >= 0 && buffered == bit(s) && !is_copied && work.parts->has_long_rows())
        return work.parts->for_each_row(
            start, count, [&](std::size_t at, std::size_t length, void* part, const void* common) {
                Block row = part_of(block, precision, at, length);
                row.data[s] = part;
                row.common = common;
                const Block next = part_of(block, precision, at + length, 0);
                kernel(row, at + length < count ? next : after);
            });

    if (buffered & bit(grad_stream) || !work.grad.data) block.grad_format = format_of(precision);
    const auto advance = [&](Block& tile) {
        const unsigned in_buffers = buffered | (work.grad.data ? 0 : bit(grad_stream));
        const Block next = part_of(tile, precision, tile_elements, 0);
        for (int s = 0; s < stream_count; ++s)
            if (!(in_buffers & bit(s))) tile.data[s] = next.data[s];
    };
    const int parts_stream = work.layout->parts_stream;
    const unsigned parts = parts_stream < 0 ? 0 : bit(parts_stream);
    Noise noise(*work.layout, work.noise_key);
    alignas(64) unsigned char buffers[stream_count][tile_elements * sizeof(double)];
    for (std::size_t done = 0; done < count; done += tile_elements) {
        block.count = std::min(tile_elements, count - done);
        for (int s = 0; s < stream_count; ++s) {
            if (!(buffered & bit(s))) continue;
            block.data[s] = buffers[s];
            if (s == parts_stream)
                work.parts->combine(start + done, block.count, buffers[s]);
            else
                gather(work.layout->shape, work.source(s), start + done, block.count, precision,
                       buffers[s]);
        }
        if (!work.grad.data) block.data[grad_stream] = block.data[param_stream];
        // It arrives while the kernel is at work.
        if (const Stream& copy = work.layout->copy; is_copied && copy.contiguous())
            fetch(copy.data + (start + done) * copy.item(), block.count * copy.item());
        Block next = block;
        advance(next);
        kernel(block, done + tile_elements < count ? next : after);
        const unsigned changed = buffered & written & ~parts;
        const std::uint16_t* const random_bits =
            changed ? noise.at(start + done, block.count) : nullptr;
        for (int s = 0; s < stream_count; ++s)
            if (changed & bit(s))
                scatter(work.layout->shape, work.stream(s), start + done, block.count, precision,
                        buffers[s], random_bits);
        if (is_copied)
            scatter(work.layout->shape, work.layout->copy, start + done, block.count, precision,
                    block.data[param_stream]);
        advance(block);
    }
}

}  // namespace instep
