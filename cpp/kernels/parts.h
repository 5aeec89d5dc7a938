// A slot that is kept in parts: what elements tell them, and what they see of them.
#pragma once

#include "kernels/update.h"

namespace instep::INSTEP_LEVEL {

/// What the elements of a tile tell is put together in their own precision, in as many lanes by
/// their index in it modulo that: in an order that no instruction set, thread or alignment changes.
inline constexpr std::size_t fold_lanes = 16;

/// The sum of both, or the larger one; what is not a number is not larger.
template <Folded how, class V>
INSTEP_INLINE V folded(V a, V told) {
    if constexpr (how == Folded::mean)
        return a + told;
    else if constexpr (std::is_arithmetic_v<V>)
        return a < told ? told : a;
    else
        return select(a < told, told, a);
}
/// The largest number in the place of infinity, which no later gradient would undo.
template <class T>
inline constexpr T largest = static_cast<T>(sizeof(T) == 4 ? __FLT_MAX__ : __DBL_MAX__);

template <class Rule>
concept tells_of_parts = requires(Pack<double, 1> x) { Rule::told(x, x); };
template <class Rule>
concept shows_parts = requires(const Rule rule, double x) { rule.shown(x, x); };

template <bool plain, class R, class T>
INSTEP_NOINLINE void fold_run(const Block& run, std::size_t bytes_ahead,
                              const Prepared<R, T>& prepared, T* each, bool begins,
                              double* const* all, int all_count) {
    using P = Pack<T, fold_lanes * sizeof(T) / vector_bytes>;
    const Surroundings<T>& around = prepared.around;
    const Factor<T> factor(run.factors);
    const Stream<T> param(run, param_stream), accumulated(run, accumulated_stream);
    const PartsStream<R, T> parts(run, first_slot + divisible_slot<R>());
    Gradient<T> grad(run);
    // Farther than in updates: a single stream has as many lines of the cache under way.
    grad.look_ahead(run, static_cast<std::ptrdiff_t>(4 * bytes_ahead / sizeof(T)));
    P total;
    const auto add = [&](std::size_t i, auto way) INSTEP_INLINE_LAMBDA {
        P g = grad.template load<P>(way, i);
        if constexpr (!plain)
            process(g, around.adds_l2 ? param.template load<P>(way, i) : P(T(0)), i, way, around,
                    factor, accumulated);
        P told;
        if constexpr (tells_of_parts<R>)
            told = R::told(g, static_cast<P>(parts.template load<P>(way, i)));
        else
            told = R::told(g);
        if constexpr (std::is_same_v<decltype(way), Part>) {
            T alone[fold_lanes] = {};
            way.store(alone, told);
            told = P::load(alone);
        }
        total = folded<R::folded>(total, told);
        if (!each) return;
        if (!begins) told = folded<R::folded>(way.template load<P>(each + i), told);
        way.store(each + i, told);
    };
    for (std::size_t i = 0; i < run.count;) {
        const std::size_t rest = run.count - i;
        const std::size_t end = i + (rest < tile_elements ? rest : tile_elements);
        total = P(T(0));
        for (; i + fold_lanes <= end; i += fold_lanes) {
            if (bytes_ahead) grad.template fetch<fold_lanes>(i);
            add(i, Whole{});
        }
        if (i < end) add(i, Part{end - i});
        i = end;
        T lanes[fold_lanes];
        total.store(lanes);
        const T told = joined<fold_lanes>(lanes, [](T a, T b) { return folded<R::folded>(a, b); });
        const T its = largest<T> < told ? largest<T> : told;
        for (int k = 0; k < all_count; ++k)
            *all[k] = folded<R::folded>(*all[k], static_cast<double>(its));
    }
}

template <template <class> class Rule, class T>
static void fold(const Block& run, std::size_t bytes_ahead, const Coefficients& coefficients,
                 void* each, bool begins, double* const* all, int all_count) {
    const auto& prepared = reinterpret_cast<const Prepared<Rule<T>, T>&>(coefficients);
    T* const cells = static_cast<T*>(each);
    if (is_plain(run, prepared))
        fold_run<true>(run, bytes_ahead, prepared, cells, begins, all, all_count);
    else
        fold_run<false>(run, bytes_ahead, prepared, cells, begins, all, all_count);
}

template <template <class> class Rule, class T>
static void pour(const void* each, std::size_t count, double* cells) {
    const T* const told = static_cast<const T*>(each);
    const auto add = [&]<class P, class Way>(std::size_t i, Way way, P) INSTEP_INLINE_LAMBDA {
        const P x = way.template load<P>(told + i), most(largest<T>);
        way.store(cells + i, folded<Rule<T>::folded>(way.template load<P>(cells + i),
                                                     select(most < x, most, x)));
    };
    using P = Pack<double, fold_lanes * sizeof(double) / vector_bytes>;
    std::size_t i = 0;
    for (; i + P::lanes <= count; i += P::lanes) add(i, Whole{}, P());
    if (i < count) add(i, Part{count - i}, P());
}

template <template <class> class Rule, class T>
static void combine(const void* const* each, int each_count, const void* const* all, int all_count,
                    void* to, std::size_t count) {
    using Wide = Pack<T, wide>;
    using Narrow = Pack<T, 1>;
    T* const target = static_cast<T*>(to);
    Wide common;
    for (int k = 0; k < all_count; ++k) {
        const Wide cell(*static_cast<const T*>(all[k]));
        common = k == 0 ? cell : Rule<T>::combined(common, cell);
    }
    const Narrow narrow_common = Narrow::load(reinterpret_cast<const T*>(&common));
    const auto for_all = [&](auto make) INSTEP_INLINE_LAMBDA {
        std::size_t i = 0;
        const auto run = [&](auto way, auto constant) INSTEP_INLINE_LAMBDA {
            way.store(target + i, make(i, way, constant));
        };
        for (; i + Wide::lanes <= count; i += Wide::lanes) run(Whole{}, common);
        for (; i + Narrow::lanes <= count; i += Narrow::lanes) run(Whole{}, narrow_common);
        if (i < count) run(Part{count - i}, narrow_common);
    };
    if (each_count == 0)
        return for_all([&](std::size_t, auto, auto constant)
                           INSTEP_INLINE_LAMBDA { return constant; });
    for (int k = 0; k < each_count; ++k) {
        const T* const cells = static_cast<const T*>(each[k]);
        for_all([&]<class P>(std::size_t i, auto way, P constant) INSTEP_INLINE_LAMBDA {
            P x = way.template load<P>(cells + i);
            if (k > 0) return Rule<T>::combined(way.template load<P>(target + i), x);
            return all_count > 0 ? Rule<T>::combined(constant, x) : x;
        });
    }
}

template <template <class> class Rule, class T>
static void renew(const Coefficients& coefficients, double* told, std::size_t chunks,
                  std::size_t stride, double elements, void* seen, void* becomes,
                  std::size_t cells) {
    using R = Rule<T>;
    const R& rule = reinterpret_cast<const Prepared<R, T>&>(coefficients).rule;
    T *const visible = static_cast<T*>(seen), *const next = static_cast<T*>(becomes);
    for (std::size_t chunk = 1; chunk < chunks; ++chunk)
        for (std::size_t k = 0; k < cells; ++k)
            told[k] = folded<R::folded>(told[k], told[chunk * stride + k]);
    for (std::size_t k = 0; k < cells; ++k) {
        const double all = R::folded == Folded::mean ? told[k] / elements : told[k];
        next[k] = static_cast<T>(rule.renewed(static_cast<double>(visible[k]), all));
        if constexpr (shows_parts<R>) visible[k] = next[k];
    }
}

template <template <class> class Rule, class T>
static void show(const Coefficients& coefficients, void* cells, std::size_t outer,
                 std::size_t extent, std::size_t inner) {
    const Rule<T>& rule = reinterpret_cast<const Prepared<Rule<T>, T>&>(coefficients).rule;
    T* const all = static_cast<T*>(cells);
    const auto show_all = [&](T* first, std::size_t count, std::size_t step,
                              double norm) INSTEP_INLINE_LAMBDA {
        for (std::size_t k = 0; k < count; ++k)
            first[k * step] =
                static_cast<T>(rule.shown(static_cast<double>(first[k * step]), norm));
    };
    if (!extent) return show_all(all, outer * inner, 1, 1);
    for (std::size_t k = 0; k < outer * inner; ++k) {
        T* const first = all + k / inner * extent * inner + k % inner;
        double sum = 0;
        for (std::size_t e = 0; e < extent; ++e) sum += static_cast<double>(first[e * inner]);
        const double norm = rule.norm(sum / static_cast<double>(extent));
        if (inner == 1)
            show_all(first, extent, 1, norm);
        else
            show_all(first, extent, inner, norm);
    }
}

}  // namespace instep::INSTEP_LEVEL
