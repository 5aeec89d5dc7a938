#include "engine/summed.h"

#include "engine/dispatch.h"
#include "engine/fetch.h"

namespace instep {
namespace {

template <class T>
void add_to(const void* from, std::size_t count, void* to) {
    const T* const x = static_cast<const T*>(from);
    T* const sums = static_cast<T*>(to);
    for (std::size_t i = 0; i < count; ++i) sums[i] += x[i];
}

template <class T>
void add_two(const void* one, const void* other, std::size_t count, void* to) {
    const T* const x = static_cast<const T*>(one);
    const T* const y = static_cast<const T*>(other);
    T* const sums = static_cast<T*>(to);
    for (std::size_t i = 0; i < count; ++i) sums[i] = x[i] + y[i];
}

template <class T>
void divide(void* numbers, std::size_t count, double by) {
    T* const x = static_cast<T*>(numbers);
    for (std::size_t i = 0; i < count; ++i) x[i] /= static_cast<T>(by);
}

void convert(const char* from, Format format, std::size_t count, Precision precision, void* to) {
    const auto item = static_cast<std::ptrdiff_t>(itemsize(format));
    const auto to_item = static_cast<std::ptrdiff_t>(itemsize(format_of(precision)));
    unit(precision).gather[static_cast<int>(format)](from, item, static_cast<char*>(to), to_item,
                                                     count);
}

}  // namespace

void add_elements(const char* from, Format format, std::size_t count, Precision precision,
                  void* to) {
    alignas(64) char converted[tile_elements * sizeof(double)];
    if (format != format_of(precision)) {
        convert(from, format, count, precision, converted);
        from = converted;
    }
    if (precision == Precision::float32)
        add_to<float>(from, count, to);
    else
        add_to<double>(from, count, to);
}

void divide_elements(std::size_t count, Precision precision, double by, void* to) {
    if (by == 1) return;
    if (precision == Precision::float32)
        divide<float>(to, count, by);
    else
        divide<double>(to, count, by);
}

void Summed::gather(Format format, std::size_t start, std::size_t count, Precision precision,
                    void* buffer) const {
    const std::size_t place = start * itemsize(format), all = sources.size();
    std::size_t next = 1;
    for (const char* const source : sources)
        fetch_next_tile(source + place, static_cast<std::ptrdiff_t>(itemsize(format)), count);
    if (all > 1 && format == format_of(precision)) {
        if (precision == Precision::float32)
            add_two<float>(sources[0] + place, sources[1] + place, count, buffer);
        else
            add_two<double>(sources[0] + place, sources[1] + place, count, buffer);
        next = 2;
    } else {
        convert(sources[0] + place, format, count, precision, buffer);
    }
    for (; next < all; ++next)
        add_elements(sources[next] + place, format, count, precision, buffer);
    divide_elements(count, precision, divisor, buffer);
}

}  // namespace instep
