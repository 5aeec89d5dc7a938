#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Adafactor: Shazeer and Stern 2018, "Adafactor: adaptive learning rates with sublinear memory
/// cost", algorithms 4 and 5, with means in the place of sums. Of parts, those of the rows and
/// those of the columns, v is r / mean(r) * c. PyTorch bounds v instead of adding epsilon to
/// squares.
template <class T>
struct Adafactor {
    static constexpr auto slots = state(divisible(positive("v")), optional("momentum"));
    static constexpr auto hyperparameters =
        names("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold", "relative_step",
              "multiply_by_parameter_scale", "momentum", "decay_offset", "weight_decay_rate",
              "clamps", "always_relative", "rms_before_decay");
    static constexpr auto sums = names("p_squared", "u_squared");
    static constexpr bool measures_before_decay = true;

    double learning_rate, share, added, bound, epsilon_2, clip_threshold, kept;
    T rate, epsilon, least, most, decay;
    Average<T> beta, momentum;
    bool clamps, multiplies;

    explicit Adafactor(const Numbers<Adafactor>& now) {
        const double t = now.step - now["decay_offset"], given = now["epsilon_1"];
        const bool is_relative = now["relative_step"] != 0 || now["always_relative"] != 0;
        const double most_now = is_relative ? 1 / sqrt(static_cast<double>(now.step)) : 0;
        learning_rate = is_relative && most_now < now.learning_rate ? most_now : now.learning_rate;
        share = portable_power(t > 1 ? t : 1, now["beta_2_decay"]);
        clamps = now["clamps"] != 0;
        bound = given < 0 ? sizeof(T) == 4 ? __FLT_EPSILON__ : __DBL_EPSILON__ : given;
        added = clamps ? 0 : bound;
        epsilon_2 = now["epsilon_2"];
        clip_threshold = now["clip_threshold"];
        kept = now["rms_before_decay"] ? 1 : 1 - now.decay;
        multiplies = now["multiply_by_parameter_scale"] != 0;
        rate = 0;
        epsilon = added;
        least = bound * bound;
        most = 1 / bound;
        decay = now["weight_decay_rate"];
        beta = now.average(1 - share);
        if (now["momentum"] != 0) momentum = now.average(now["momentum"]);
        now.plain_if(!clamps && decay == 0);
    }

    static constexpr Folded folded = Folded::mean;
    template <Number V>
    static INSTEP_INLINE V combined(V a, V b) {
        return a * b;
    }
    template <Number V>
    static INSTEP_INLINE V told(V g) {
        return g * g;
    }
    double renewed(double part, double mean) const {
        return (1 - share) * part + share * (mean + added);
    }
    /// Its share of 1 / sqrt(v), with r over its mean and c over 1.
    double shown(double part, double norm) const {
        const double its = 1 / sqrt(part / norm), none = clamps ? __builtin_huge_val() : 0;
        return part == 0 ? none : its;
    }
    double norm(double mean) const { return clamps && mean < bound ? bound : mean; }

    template <class Add, Number V, class W, class M>
    INSTEP_INLINE void measure(Add add, V p, V g, W v, M) const {
        const V u = direction(g, v);
        add("p_squared", p);
        add("u_squared", u);
    }
    void complete(const Totals<Adafactor>& totals) {
        const auto rms = [&](double square) { return sqrt(square / totals.elements); };
        const double length = rms(totals["p_squared"]) * (kept < 0 ? -kept : kept);
        const double excess = rms(totals["u_squared"]) / clip_threshold;
        const double scale = multiplies ? length < epsilon_2 ? epsilon_2 : length : 1;
        rate = learning_rate * scale / (excess < 1 ? 1 : excess);
    }
    template <Number V, class W, class M>
    INSTEP_INLINE void operator()(V& p, V g, W& v, M& m) const {
        V step = rate * direction(g, v);
        if constexpr (used<M>) step = m = momentum(m, step);
        if constexpr (!V::plain) step += decay * p;
        p -= step;
    }

private:
    /// Nothing where v underflows: there is next to no gradient.
    template <Number V, class W>
    INSTEP_INLINE V direction(V g, W& v) const {
        if constexpr (whole<W>) {
            v = beta.of_squares(v, beta.share(g * g + epsilon));
            V bounded = v;
            if constexpr (!V::plain)
                if (clamps) bounded = select(v < least, V(least), v);
            return select(bounded < smallest<T>, V(0), g / sqrt(bounded));
        } else if constexpr (V::plain) {
            return v * g;
        } else {
            return (clamps ? lesser(V(most), v) : v) * g;
        }
    }
};

}  // namespace instep::INSTEP_LEVEL
