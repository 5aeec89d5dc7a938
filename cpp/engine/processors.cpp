#include "engine/processors.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace instep {
namespace {

/// A line's parts between separators.
std::vector<std::string> split(const std::string& line, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(line);
    for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
    return parts;
}

bool contains(const std::vector<std::string>& list, const std::string& item) {
    return std::find(list.begin(), list.end(), item) != list.end();
}

/// The numbers at the beginning of a file; "max", which is no number, ends them.
std::vector<double> numbers_in(const std::string& path) {
    std::vector<double> numbers;
    std::ifstream file(path);
    for (double number; file >> number;) numbers.push_back(number);
    return numbers;
}

/// The processors' worth of time that one group grants; infinite without a limit.
double quota_of(const std::string& directory) {
    std::vector<double> numbers = numbers_in(directory + "/cpu.max");  // version 2
    if (numbers.empty()) {                                             // version 1
        numbers = numbers_in(directory + "/cpu.cfs_quota_us");
        const std::vector<double> period = numbers_in(directory + "/cpu.cfs_period_us");
        if (numbers.empty() || period.empty()) return HUGE_VAL;
        numbers.push_back(period[0]);
    } else if (numbers.size() == 1) {
        numbers.push_back(100000);
    }
    return numbers[0] > 0 && numbers[1] > 0 ? numbers[0] / numbers[1] : HUGE_VAL;
}

/// Where a process is in the hierarchies of either version that may limit processors.
struct Groups {
    std::optional<std::string> unified, cpu;

    explicit Groups(std::istream& cgroup) {
        for (std::string line; std::getline(cgroup, line);) {
            // hierarchy:controllers:path
            const std::size_t first = line.find(':'), second = line.find(':', first + 1);
            if (first == std::string::npos || second == std::string::npos) continue;
            const std::string controllers = line.substr(first + 1, second - first - 1);
            if (controllers.empty()) unified = line.substr(second + 1);
            if (contains(split(controllers, ','), "cpu")) cpu = line.substr(second + 1);
        }
    }
};

bool begins_with(const std::string& text, const std::string& beginning) {
    return text.compare(0, beginning.size(), beginning) == 0;
}

/// A path as it is; mountinfo has spaces and the like as octal numbers.
std::string unescaped(const std::string& path) {
    std::string result;
    for (std::size_t k = 0; k < path.size(); ++k) {
        if (path[k] == '\\' && k + 3 < path.size()) {
            result += static_cast<char>(std::stoi(path.substr(k + 1, 3), nullptr, 8));
            k += 3;
        } else {
            result += path[k];
        }
    }
    return result;
}

/// The least that a group and those around it grant, as far as they can be seen where the hierarchy
/// is mounted: from `top` on.
double least_quota(const std::string& mount, const std::string& top, const std::string& group) {
    if (begins_with(group, "/..")) return HUGE_VAL;
    std::string path;  // below the mount
    if (top == "/")
        path = group;
    else if (begins_with(group + "/", top + "/"))
        path = group.substr(top.size());
    double least = quota_of(mount + path);
    while (!path.empty()) {
        path.resize(path.rfind('/'));
        least = std::min(least, quota_of(mount + path));
    }
    return least;
}

}  // namespace

std::optional<int> quota(std::istream& cgroup, std::istream& mountinfo, const std::string& root) {
    const Groups groups(cgroup);
    double least = HUGE_VAL;
    for (std::string line; std::getline(mountinfo, line);) {
        // id parent device top mount-point options ... - type source super-options
        const std::vector<std::string> parts = split(line, ' ');
        const auto dash = std::find(parts.begin(), parts.end(), "-");
        if (dash - parts.begin() < 6 || parts.end() - dash < 4) continue;
        const std::optional<std::string>* group = nullptr;
        if (dash[1] == "cgroup2") group = &groups.unified;
        if (dash[1] == "cgroup" && contains(split(dash[3], ','), "cpu")) group = &groups.cpu;
        if (group && *group)
            least = std::min(least,
                             least_quota(root + unescaped(parts[4]), unescaped(parts[3]), **group));
    }
    if (std::isinf(least)) return std::nullopt;
    return std::max(1, static_cast<int>(std::ceil(std::min(least, 1e6))));
}

int this_processor() noexcept {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

void leave_processor([[maybe_unused]] int processor) noexcept {
#if defined(__linux__)
    cpu_set_t all;
    if (sched_getaffinity(0, sizeof all, &all) != 0) return;
    cpu_set_t others = all;
    CPU_CLR(processor, &others);
    if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
    sched_setaffinity(0, sizeof all, &all);
#endif
}

int within_quota(int count) {
#if defined(__linux__)
    static const std::optional<int> granted = [] {  // once: it takes files
        std::ifstream cgroup("/proc/self/cgroup"), mountinfo("/proc/self/mountinfo");
        return quota(cgroup, mountinfo, "");
    }();
    count = std::min(count, granted.value_or(count));
#endif
    return count;
}

int available_processors() {
    int count = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) count = std::max(1, CPU_COUNT(&set));
#endif
    return within_quota(count);
}

}  // namespace instep
