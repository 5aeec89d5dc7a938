#include "engine/prefetch.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>

namespace instep {
namespace {

/// In bytes, by the way.
constexpr std::array<std::size_t, 3> distances{0, 512, 2048};
static_assert(distances.size() <= Choice::most_ways);

constexpr std::size_t most_distance = 65536;

/// Less than this, and fetching ahead has nothing to gain.
constexpr std::size_t least_bytes = 64 * 1024;
/// A stream of such an array is shorter than what is fetched ahead would be.
constexpr std::size_t small_array_bytes = 8 * 1024;

constexpr std::size_t stream_counts = 8, sizes = 6;
constexpr std::size_t kinds = precision_count * stream_counts * sizes * 2 * 2;

Choice choices[kinds];

std::optional<std::size_t> setting;

/// The kind of a passage, as an index.
std::size_t kind_of(const Passage& passage) {
    const std::size_t item = itemsize(format_of(passage.precision));
    const std::size_t streams = std::clamp<std::size_t>(
        (passage.bytes / passage.elements + item / 2) / item, 1, stream_counts);
    const std::size_t size =
        std::min<std::size_t>((std::bit_width(passage.bytes / least_bytes) - 1) / 2, sizes - 1);
    const bool small_arrays = passage.elements / passage.arrays * item < small_array_bytes;
    std::size_t kind = static_cast<std::size_t>(passage.precision);
    kind = kind * stream_counts + streams - 1;
    kind = kind * sizes + size;
    kind = kind * 2 + small_arrays;
    return kind * 2 + (passage.threads > 1);
}

Finding finding_of(std::size_t kind) {
    Finding finding{};
    const auto digit = [&](std::size_t base) {
        const std::size_t value = kind % base;
        kind /= base;
        return value;
    };
    const Choice& choice = choices[kind];
    const std::array<float, Choice::most_ways> times = choice.times();
    finding.several_threads = digit(2) != 0;
    finding.small_arrays = digit(2) != 0;
    finding.least_bytes = least_bytes << 2 * digit(sizes);
    finding.streams = static_cast<int>(digit(stream_counts)) + 1;
    finding.precision = static_cast<Precision>(kind);
    finding.distances.assign(distances.begin(), distances.end());
    finding.seconds_per_byte.assign(times.begin(), times.begin() + distances.size());
    finding.chosen = distances[static_cast<std::size_t>(choice.chosen())];
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
}

std::optional<std::size_t> prefetch_setting() {
    return setting;
}

std::vector<Finding> prefetch_findings() {
    std::vector<Finding> findings;
    for (std::size_t kind = 0; kind < kinds; ++kind)
        if (choices[kind].times()[0] > 0) findings.push_back(finding_of(kind));
    return findings;
}

Prefetch::Prefetch(const Passage& passage, bool may_measure) noexcept
    : choice_(setting || passage.bytes < least_bytes ? nullptr : &choices[kind_of(passage)]),
      trial_(choice_, distances.size(), may_measure),
      bytes_(static_cast<float>(passage.bytes)) {}

std::size_t Prefetch::distance_of(int way) noexcept {
    return setting ? *setting : distances[static_cast<std::size_t>(way)];
}

}  // namespace instep
