#pragma once
#include "rules/vocabulary.h"

namespace instep::INSTEP_LEVEL {

/// Averaged stochastic gradient descent: Polyak and Juditsky 1992, "Acceleration of stochastic
/// approximation by averaging", with the rates of Bottou 2010 as in PyTorch. The average, which
/// starts after t0 steps, does not influence the parameter.
template <class T>
struct ASGD {
    static constexpr auto slots = state(exact("ax"));
    static constexpr auto scalars = names("eta", "mu");
    static constexpr auto hyperparameters = names("lambd", "alpha", "t0");

    T decay, rate, share;
    bool copies;

    explicit ASGD(const Numbers<ASGD>& now) {
        const double lambd = now["lambd"], alpha = now["alpha"], t0 = now["t0"];
        double &eta = now.scalar("eta"), &mu = now.scalar("mu");
        if (now.first) eta = now.learning_rate;
        decay = lambd * eta;
        rate = eta;
        share = mu;
        copies = mu == 1;
        const double t = static_cast<double>(now.step), past = t - t0;
        eta = now.learning_rate / real_power(1 + lambd * now.learning_rate * t, alpha);
        mu = past > 1 ? 1 / past : 1;
    }

    template <Number V>
    INSTEP_INLINE void operator()(V& p, V g, V& ax) const {
        p -= decay * p;
        p -= rate * g;
        ax = copies ? p : ax + share * (p - ax);
    }
};

}  // namespace instep::INSTEP_LEVEL
