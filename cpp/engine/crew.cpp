#include "engine/crew.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <signal.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "engine/processors.h"
#include "engine/tsan.h"

namespace instep {

#if defined(_OPENMP)
namespace {

using Body = void (*)(void* context, Piece piece, bool is_caller);

void relax() noexcept {
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

/// A thread that looked at the clock twice and finds that so much time has passed has not had its
/// processor for itself.
constexpr Clock::duration turn = 200us;

/// By how much the clock is ahead of the time that this thread has had a processor.
Clock::duration time_absent() noexcept {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    timespec used;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0)
        return Clock::now().time_since_epoch() - std::chrono::seconds(used.tv_sec) -
               std::chrono::nanoseconds(used.tv_nsec);
#endif
    return {};
}

/// Waits until a number is not this one any more, awake as long as `stays_awake()`, then asleep;
/// gives the other.
template <class Condition>
std::uint32_t wait_while(const std::atomic<std::uint32_t>& number, std::uint32_t is,
                         Condition stays_awake) noexcept {
    do {
        for (int k = 0; k < 32; ++k) {
            const std::uint32_t now = number.load(std::memory_order_acquire);
            if (now != is) return now;
            relax();
        }
    } while (stays_awake());
    number.wait(is, std::memory_order_acquire);
    return number.load(std::memory_order_acquire);
}

/// Whether processors are wanted by others: then who has taken a piece may lose its processor for
/// longer than a short step takes, and who waits awake may take it from the one waited for. It is
/// tried again soon, and less and less often as long as it stays so.
class Crowd {
public:
    bool is_there(Clock::time_point now) const { return now < until_; }
    void note(Clock::time_point now) {
        length_ = now < until_ + length_ ? std::min(2 * length_, most) : least;
        until_ = now + length_;
    }

private:
    static constexpr Clock::duration least = 10ms, most = 640ms;
    Clock::duration length_ = least;
    Clock::time_point until_{};
};

/// Neighbouring pieces that nobody has taken yet: the first, and the one after the last, in one
/// word. Their owner takes them in order, others from behind.
class alignas(64) Share {
public:
    void set(std::uint32_t first, std::uint32_t end) noexcept {
        range_.store(std::uint64_t{first} << 32 | end, std::memory_order_release);
    }
    std::uint32_t left() const noexcept { return left(range_.load(std::memory_order_relaxed)); }
    bool take(bool from_behind, std::size_t& piece) noexcept {
        std::uint64_t range = range_.load(std::memory_order_relaxed), rest;
        do {
            if (left(range) == 0) return false;
            piece = from_behind ? static_cast<std::uint32_t>(range) - 1 : range >> 32;
            rest = from_behind ? range - 1 : range + (std::uint64_t{1} << 32);
        } while (!range_.compare_exchange_weak(range, rest, std::memory_order_acquire,
                                               std::memory_order_relaxed));
        return true;
    }

private:
    static std::uint32_t left(std::uint64_t range) noexcept {
        return static_cast<std::uint32_t>(range) - static_cast<std::uint32_t>(range >> 32);
    }
    std::atomic<std::uint64_t> range_{0};
};

/// Where a caller lays out work. Outlives both it and those who come late: what they find then is
/// nothing to take, or a later round. Whoever has taken a piece may read the rest, which stays as
/// it is until all pieces are done.
class Desk {
public:
    explicit Desk(std::size_t members) : shares_(members) {}

    void lay_out(int team, std::size_t pieces, Body body, void* context) noexcept {
        body_ = body;
        context_ = context;
        pieces_ = pieces;
        team_.store(team, std::memory_order_relaxed);
        unfinished_.store(static_cast<std::uint32_t>(pieces), std::memory_order_relaxed);
        const auto border = [&](int member) {
            return static_cast<std::uint32_t>(pieces * static_cast<std::size_t>(member) /
                                              static_cast<std::size_t>(team));
        };
        for (int k = 0; k < team; ++k)
            shares_[static_cast<std::size_t>(k)].set(border(k), border(k + 1));
    }

    /// Works until there is nothing left to take.
    void work(int member) noexcept {
        std::size_t piece;
        const int team = team_.load(std::memory_order_relaxed);
        if (member >= team) return;
        while (shares_[static_cast<std::size_t>(member)].take(false, piece)) run(piece, member);
        while (Share* const last = fullest(team))
            if (last->take(true, piece)) run(piece, member);
    }

    void wait_until_done() noexcept {
        const Clock::time_point start = Clock::now();
        while (const std::uint32_t left = unfinished_.load(std::memory_order_acquire))
            wait_while(unfinished_, left, [&] { return Clock::now() - start < 50us; });
    }

    /// For others: works in each round, until the desk is closed.
    void serve(int member, Clock::duration awake) noexcept {
        for (std::uint32_t round = 0;;) {
            round = wait_for_round(round, awake);
            if (closed_.load(std::memory_order_relaxed)) return;
            step_aside();
            const Clock::duration absent = time_absent();
            const Clock::time_point start = Clock::now();
            work(member);
            if (Clock::now() - start > turn && time_absent() - absent > turn) note_interruption();
        }
    }
    /// Whether one of them had to wait for a processor since this was asked last, or was in the
    /// caller's way.
    bool was_interrupted() noexcept {
        return was_interrupted_.load(std::memory_order_relaxed) &&
               was_interrupted_.exchange(false, std::memory_order_relaxed);
    }
    void set_crowded(bool is) noexcept { is_crowded_.store(is, std::memory_order_relaxed); }
    void begin_round() noexcept {
        caller_at_.store(this_processor(), std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
    }
    void close() noexcept {
        closed_.store(true, std::memory_order_relaxed);
        begin_round();
    }

private:
    std::uint32_t wait_for_round(std::uint32_t last_round, Clock::duration awake) noexcept {
        const Clock::time_point start = Clock::now();
        Clock::time_point last_look = start;
        return wait_while(round_, last_round, [&] {
            if (is_crowded_.load(std::memory_order_relaxed)) return false;
            const Clock::time_point before = std::exchange(last_look, Clock::now());
            if (last_look - before > turn || !step_aside()) {
                note_interruption();
                return false;
            }
            return last_look - start < awake;
        });
    }
    /// Leaves the caller's processor, where the system may wake threads though others are free;
    /// says whether it is another one now.
    bool step_aside() noexcept {
        const auto is_in_its_way = [&] {
            const int here = this_processor();
            return here >= 0 && here == caller_at_.load(std::memory_order_relaxed);
        };
        if (!is_in_its_way()) return true;
        leave_processor(this_processor());
        return !is_in_its_way();
    }
    void note_interruption() noexcept { was_interrupted_.store(true, std::memory_order_relaxed); }

    Share* fullest(int team) noexcept {
        Share* best = nullptr;
        std::uint32_t most = 0;
        for (int k = 0; k < team; ++k) {
            Share& share = shares_[static_cast<std::size_t>(k)];
            if (const std::uint32_t left = share.left(); left > most) {
                most = left;
                best = &share;
            }
        }
        return best;
    }

    void run(std::size_t piece, int member) noexcept {
        body_(context_, {piece, pieces_}, member == 0);
        if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
    }

    std::vector<Share> shares_;
    Body body_ = nullptr;
    void* context_ = nullptr;
    std::size_t pieces_ = 0;
    alignas(64) std::atomic<std::uint32_t> unfinished_{0};
    alignas(64) std::atomic<std::uint32_t> round_{0};
    std::atomic<int> team_{1}, caller_at_{-1};
    std::atomic<bool> closed_{false}, is_crowded_{false}, was_interrupted_{false};
};

/// How long a thread looks for work before it sleeps: as OpenMP is told to wait.
Clock::duration time_awake() {
    const char* const policy = std::getenv("OMP_WAIT_POLICY");
    if (policy && (*policy == 'p' || *policy == 'P')) return Clock::duration::zero();
    return 2ms;
}

/// The threads of one caller: a team of OpenMP's in a region of its own, whose end nobody awaits.
class Crew {
public:
    /// Throws where the system refuses the thread.
    explicit Crew(int helpers)
        : helpers_(helpers), desk_(std::make_shared<Desk>(static_cast<std::size_t>(helpers) + 1)) {
#if defined(__unix__) || defined(__APPLE__)
        // Signals are for threads of the program's own.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        const std::unique_ptr<sigset_t, void (*)(sigset_t*)> restored(
            &before, [](sigset_t* mask) { pthread_sigmask(SIG_SETMASK, mask, nullptr); });
#endif
        std::thread([helpers, desk = desk_, awake = time_awake()] {
#pragma omp parallel num_threads(helpers)
            {
                desk->serve(1 + omp_get_thread_num(), awake);
                tsan::release(desk.get());
            }
            tsan::acquire(desk.get());
        }).detach();
    }
    ~Crew() { desk_->close(); }
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    int helpers() const { return helpers_; }

    void share_out(int team, std::size_t pieces, Body body, void* context) noexcept {
        const Clock::time_point start = Clock::now();
        if (desk_->was_interrupted()) crowd_.note(start);
        const bool is_crowded = crowd_.is_there(start);
        if (is_crowded) team = is_short(pieces) ? 1 : std::min(team, available_processors());
        desk_->set_crowded(is_crowded);
        desk_->lay_out(team, pieces, body, context);
        if (team > 1) desk_->begin_round();
        desk_->work(0);
        const Clock::time_point done = Clock::now();
        desk_->wait_until_done();
        if (team > 1 && Clock::now() - done > 5 * turn) crowd_.note(done);
    }

private:
    int helpers_;
    std::shared_ptr<Desk> desk_;
    Crowd crowd_;
};

/// Whether OpenMP was told who may run where, and how many: then its own region obeys.
bool is_told_otherwise(int threads) {
    return omp_in_parallel() || omp_get_dynamic() || omp_get_proc_bind() != omp_proc_bind_false ||
           omp_get_thread_limit() < threads;
}

INSTEP_UNSEEN void share_out_in_region(int threads, std::size_t pieces, Body body, void* context) {
    Desk desk(static_cast<std::size_t>(threads));
    desk.lay_out(threads, pieces, body, context);
    tsan::release(&desk);
#pragma omp parallel num_threads(threads)
    {
        tsan::acquire(&desk);
        desk.work(omp_get_thread_num());
        tsan::release(&desk);
    }
    tsan::acquire(&desk);
}

void share_out_to_crew(int threads, std::size_t pieces, Body body, void* context) {
    thread_local std::unique_ptr<Crew> crew;
    if (!crew || crew->helpers() < threads - 1) {
        crew.reset();
        crew = std::make_unique<Crew>(threads - 1);
    }
    crew->share_out(threads, pieces, body, context);
}

}  // namespace

void share_out(int threads, std::size_t pieces, Body body, void* context) noexcept {
    try {
        if (is_told_otherwise(threads)) return share_out_in_region(threads, pieces, body, context);
        return share_out_to_crew(threads, pieces, body, context);
    } catch (const std::exception&) {
        // Neither memory nor a thread to be had, and nothing begun.
        for (std::size_t k = 0; k < pieces; ++k) body(context, {k, pieces}, true);
    }
}
#else
void share_out(int, std::size_t pieces, void (*body)(void*, Piece, bool), void* context) noexcept {
    for (std::size_t k = 0; k < pieces; ++k) body(context, {k, pieces}, true);
}
#endif

}  // namespace instep
