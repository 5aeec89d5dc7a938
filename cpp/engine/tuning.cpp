#include "engine/tuning.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "engine/dispatch.h"

namespace instep {
namespace {

/// All manners, by the way; the last one is for units with a choice of square roots only.
std::vector<Manner> manners{{0, true}, {512, true}, {2048, true}, {0, false}};

/// What INSTEP_PREFETCH sets.
std::optional<std::size_t> setting;
constexpr std::size_t most_distance = 65536;

/// Of less than this no manner makes more than looking for it costs.
constexpr std::size_t least_bytes = 8 * 1024;
/// A stream of such an array is shorter than what is fetched ahead.
constexpr std::size_t small_array_bytes = 8 * 1024;

constexpr std::size_t stream_counts = 8, sizes = 7;
constexpr std::size_t kinds = precision_count * stream_counts * sizes * 2 * 2 * 2;

Choice choices[kinds];

Finding finding_of(std::size_t kind) {
    Finding finding{};
    const auto digit = [&](std::size_t base) {
        const std::size_t value = kind % base;
        kind /= base;
        return value;
    };
    const Choice& choice = choices[kind];
    finding.chosen = static_cast<std::size_t>(choice.chosen());
    finding.several_threads = digit(2) != 0;
    finding.watched = digit(2) != 0;
    finding.small_arrays = digit(2) != 0;
    finding.least_bytes = least_bytes << 2 * digit(sizes);
    finding.streams = static_cast<int>(digit(stream_counts)) + 1;
    finding.precision = static_cast<Precision>(kind);
    for (std::size_t way = 0; way < manners.size(); ++way) {
        const float time = choice.times()[way];
        if (time == 0) continue;
        finding.manners.push_back(manners[way]);
        finding.seconds_per_byte.push_back(time);
    }
    return finding;
}

}  // namespace

void read_prefetch_setting() {
    const char* const text = std::getenv("INSTEP_PREFETCH");
    if (!text || !*text) return;
    const long long bytes = std::strtoll(text, nullptr, 10);
    if (bytes < 0 || bytes > static_cast<long long>(most_distance) || std::to_string(bytes) != text)
        throw std::runtime_error("INSTEP_PREFETCH=" + std::string(text) +
                                 ": expected a number of bytes from 0 to " +
                                 std::to_string(most_distance));
    setting = static_cast<std::size_t>(bytes);
    manners = {{*setting, true}, {*setting, false}};
}

std::optional<std::size_t> prefetch_setting() {
    return setting;
}

Choice* choices_for(const Passage& passage) noexcept {
    if (passage.bytes < least_bytes || Tuning::ways(passage.precision) < 2) return nullptr;
    const std::size_t item = itemsize(format_of(passage.precision));
    const std::size_t streams = std::clamp<std::size_t>(
        (passage.bytes / passage.elements + item / 2) / item, 1, stream_counts);
    const std::size_t size = std::min<std::size_t>(
        (static_cast<std::size_t>(std::bit_width(passage.bytes / least_bytes)) - 1) / 2, sizes - 1);
    std::size_t kind = static_cast<std::size_t>(passage.precision);
    kind = kind * stream_counts + streams - 1;
    kind = kind * sizes + size;
    kind = kind * 2 + (passage.elements / passage.arrays * item < small_array_bytes);
    kind = kind * 2 + passage.watched;
    return &choices[2 * kind];
}

std::vector<Finding> findings() {
    std::vector<Finding> all;
    for (std::size_t kind = 0; kind < kinds; ++kind)
        if (choices[kind].times()[0] > 0) all.push_back(finding_of(kind));
    return all;
}

int Tuning::ways(Precision precision) noexcept {
    return static_cast<int>(manners.size()) - !unit(precision).chooses_square_roots;
}

const Manner& Tuning::manner(int way) noexcept {
    return manners[static_cast<std::size_t>(way)];
}

}  // namespace instep
