#include "engine/parts.h"

#include <algorithm>

#include "engine/tiles.h"

namespace instep {
namespace {

/// How many chunks there are at most, so that what they tell stays small beside the array, and how
/// many elements they have at least.
constexpr std::size_t most_chunks = 16, least_elements = 16384;

/// How many elements make a row worth a kernel's call.
constexpr std::size_t least_row = 128;

/// Of how many elements of a row what they tell stays in the nearest cache, and of how many rows
/// it is added up in the precision of the elements.
constexpr std::size_t strip_elements = 4096, most_rows = 32;

}  // namespace

SeenParts::SeenParts(const Layout& layout, const PartKernels& kernels)
    : layout_(layout), kernels_(kernels), item_(itemsize(format_of(layout.precision))) {
    const std::vector<std::ptrdiff_t>& extents = layout.shape.extents;
    const std::size_t outer = extents.empty() ? 1 : static_cast<std::size_t>(extents[0]);
    row_ = layout.size / outer;
    std::size_t seen_cells = 0, shared_cells = 0, own_cells = 0;
    for (const Part& part : layout.parts) {
        const bool outermost = !extents.empty() && part.steps.front() != 0;
        const bool innermost = !extents.empty() && part.steps.back() != 0;
        cells_.push_back(
            {&part, seen_cells, outermost ? own_cells : shared_cells, outermost, innermost});
        seen_cells += part.size;
        (outermost ? own_cells : shared_cells) += part.size;
    }
    const std::size_t worth = std::min(layout.size / least_elements,
                                       layout.size / (8 * std::max<std::size_t>(shared_cells, 1)));
    const std::size_t chunks = std::clamp<std::size_t>(worth, 1, std::min(outer, most_chunks));
    chunk_rows_ = (outer + chunks - 1) / chunks;
    chunk_count_ = (outer + chunk_rows_ - 1) / chunk_rows_;
    for (Cells& cells : cells_)
        if (!cells.has_outermost) cells.told = own_cells + cells.told * chunk_count_;
    const auto along_rows = std::count_if(cells_.begin(), cells_.end(),
                                          [](const Cells& cells) { return cells.has_innermost; });
    const bool has_long_rows = along_rows == 1 && cells_.size() > 1 &&
                               static_cast<std::size_t>(extents.back()) >= least_row;
    long_row_ = has_long_rows ? static_cast<std::size_t>(extents.back()) : 0;
    seen_.resize((seen_cells * item_ + sizeof(double) - 1) / sizeof(double));
    told_.resize(own_cells + shared_cells * chunk_count_);
}

void SeenParts::read() {
    for (const Cells& cells : cells_)
        gather(cells.part->shape, cells.part->stream, 0, cells.part->size, layout_.precision,
               seen(cells.seen));
}

void SeenParts::combine(std::size_t start, std::size_t count, void* to) const {
    for_each_run(start, count, [&](std::size_t offset, std::size_t length, const auto& first) {
        std::array<const void*, max_axes> each, all;
        std::size_t each_count = 0, all_count = 0;
        for (std::size_t k = 0; k < cells_.size(); ++k)
            (cells_[k].has_innermost ? each[each_count++] : all[all_count++]) =
                seen(cells_[k].seen + first[k]);
        kernels_.combine(each.data(), static_cast<int>(each_count), all.data(),
                         static_cast<int>(all_count), static_cast<char*>(to) + offset * item_,
                         length);
    });
}

void SeenParts::fold(const Work& work, const Plan& plan, std::size_t chunk,
                     std::size_t bytes_ahead) {
    const std::size_t start = chunk * chunk_elements();
    const std::size_t count = std::min(chunk_elements(), layout_.size - start);
    std::array<double*, max_axes> told;
    for (std::size_t k = 0; k < cells_.size(); ++k) {
        const Cells& cells = cells_[k];
        told[k] = told_.data() + cells.told;
        double* begin = told[k];
        std::size_t length = cells.part->size;
        if (cells.has_outermost) {
            const auto step = static_cast<std::size_t>(cells.part->steps.front());
            begin += chunk * chunk_rows_ * step;
            length = count / row_ * step;
        } else {
            begin = told[k] += chunk * length;
        }
        std::fill_n(begin, length, 0.0);
    }
    const unsigned used = bit(param_stream) | bit(grad_stream) | bit(accumulated_stream) |
                          (plan.rule->info.tells_of_parts ? bit(layout_.parts_stream) : 0);
    // What rows tell of the same cells, one for each element, is put together before it goes there.
    alignas(64) unsigned char each[strip_elements * sizeof(double)];
    double* cells_of_each = nullptr;
    std::size_t strip = 0, rows = 0;
    const auto pour = [&] {
        if (rows) kernels_.pour(each, strip, cells_of_each);
        rows = 0;
    };
    const auto fold_run = [&](const Block& run, std::size_t at, const auto& first) {
        std::array<double*, max_axes> along, all;
        std::size_t along_count = 0, all_count = 0;
        for (std::size_t k = 0; k < cells_.size(); ++k)
            (cells_[k].has_innermost ? along[along_count++] : all[all_count++]) =
                told[k] + first[k];
        const auto fold_into = [&](void* numbers, bool begins, std::size_t those_for_all) {
            kernels_.fold(run, bytes_ahead, plan.update.coefficients, numbers, begins, all.data(),
                          static_cast<int>(those_for_all));
        };
        if (along_count == 0) return fold_into(nullptr, false, all_count);
        if (along_count == 1) {
            double* const cells = along[0] - at;
            if (at == 0 && (cells != cells_of_each || rows == most_rows)) pour();
            cells_of_each = cells;
            if (at == 0) ++rows;
            return fold_into(each + at * item_, rows == 1, all_count);
        }
        for (std::size_t k = 0; k < along_count; ++k) {
            fold_into(each, true, k == 0 ? all_count : 0);
            kernels_.pour(each, run.count, along[k]);
        }
    };
    // Rows a few at a time where they are short, strips of them where they are long: so that tiles
    // end where rows or strips do. Along a single axis a chunk is one row.
    const std::vector<std::ptrdiff_t>& extents = layout_.shape.extents;
    const std::size_t row = extents.size() > 1 ? static_cast<std::size_t>(extents.back()) : count;
    const std::size_t row_count = count / row;
    const std::size_t together = std::max<std::size_t>(tile_elements / row, 1);
    for (std::size_t column = 0; column < row; column += strip_elements) {
        strip = std::min(strip_elements, row - column);
        for (std::size_t k = 0; k < row_count; k += together) {
            const std::size_t first = start + k * row + column;
            std::size_t done = 0;
            const auto fold_block = [&](const Block& block, const Block&) {
                for_each_run(first + done, block.count,
                             [&](std::size_t offset, std::size_t length, const auto& cells) {
                                 const Block run =
                                     part_of(block, layout_.precision, offset, length);
                                 fold_run(run, (done + offset) % strip, cells);
                             });
                done += block.count;
            };
            for_each_tile(work, first, std::min(together, row_count - k) * strip, used, 0,
                          work.block, fold_block);
        }
        pour();
    }
}

void SeenParts::renew(const Plan& plan) {
    const Coefficients& coefficients = plan.update.coefficients;
    alignas(64) unsigned char becomes[tile_elements * sizeof(double)];
    for (const Cells& cells : cells_) {
        const Part& part = *cells.part;
        const double elements = static_cast<double>(layout_.size) / static_cast<double>(part.size);
        const std::size_t chunks = cells.has_outermost ? 1 : chunk_count_;
        for (std::size_t start = 0; start < part.size; start += tile_elements) {
            const std::size_t count = std::min(tile_elements, part.size - start);
            kernels_.renew(coefficients, &told_[cells.told + start], chunks, part.size, elements,
                           seen(cells.seen + start), becomes, count);
            scatter(part.shape, part.stream, start, count, layout_.precision, becomes);
        }
    }
    if (!kernels_.show) return;
    for (const Cells& cells : cells_) {
        const Part& part = *cells.part;
        std::size_t outer = part.size, extent = 0, inner = 1;
        if (&cells == &cells_.front()) {
            // Along the axis that the others lack.
            extent = 1;
            for (std::size_t axis = 0; axis < layout_.shape.extents.size(); ++axis) {
                const bool lacked =
                    std::all_of(cells_.begin() + 1, cells_.end(),
                                [&](const Cells& other) { return other.part->steps[axis] == 0; });
                if (part.steps[axis] == 0 || !lacked) continue;
                extent = static_cast<std::size_t>(layout_.shape.extents[axis]);
                inner = static_cast<std::size_t>(part.steps[axis]);
            }
            outer = part.size / (extent * inner);
        }
        kernels_.show(coefficients, seen(cells.seen), outer, extent, inner);
    }
}

}  // namespace instep
