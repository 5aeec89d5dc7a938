"""Whose formula and defaults a rule follows: the table that the code runs on.

The paper's formula and defaults are those of the rule's class. Each row here says what a framework
does otherwise: its default hyperparameters, switches of the formula, which reach the kernel as
further hyperparameters, and its formula in words. `python -m instep conventions` prints the table.

`LETTERS` says what their letters mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

REQUIRED = None
"""A learning rate without a default."""

LETTERS: Mapping[str, str] = {
    "g": "the gradient, after clipping and coupled decay",
    "p": "the parameter",
    "lr": "the learning rate of the update",
    "t": "the count of the update, from 1",
    "m": "beta_1 * m + (1 - beta_1) * g",
    "v": "beta_2 * v + (1 - beta_2) * g**2; in RMSprop with rho, as a of g",
    "c1, c2, c3": "1 - beta_1**t, 1 - beta_2**t, 1 - beta_3**t",
    "norm, rms": "the 2-norm and the root mean square of an array",
    "others": "as the formula says; what it finds and leaves is kept from update to update",
}
"""What stands for what, unless a formula says otherwise."""

GLOBAL_CLOCK = frozenset({"keras", "optax", "tfjs"})
"""Conventions whose rules count every update, also those in which an array had no gradient."""
COUNTS_CALLS = frozenset({"keras"})
"""Conventions in which schedules count and averages move at every call of an accumulation window.
"""


@dataclass(frozen=True)
class Convention:
    """One cell of the table.

    Attributes
    ----------
    source
        What it is called where it comes from.
    formula
        The update.
    values
        Default hyperparameters and switches of the formula; what is not here is the class's.
    decay
        What the framework's weight decay is: "decoupled", "coupled" (here `l2`), or "inside": a
        term of the formula.
    none
        Hyperparameters of which None has a meaning in the framework, and what it means here.
    counts
        Whether the update depends on its count though the paper's does not.
    """

    source: str
    formula: str
    values: Mapping[str, Any]
    decay: str
    none: Mapping[str, Any] = field(default_factory=dict)
    counts: bool = False

    def default(self, name: str, otherwise: Any) -> Any:
        """Return the default of a hyperparameter, given that of the class."""
        return self.values.get(name, otherwise)


def _row(
    source: str,
    formula: str,
    *,
    decay: str = "decoupled",
    none: Mapping[str, Any] = MappingProxyType({}),
    counts: bool = False,
    **values: Any,
) -> Convention:
    return Convention(source, formula, MappingProxyType(values), decay, none, counts)


ADAM_KERAS = "p -= lr * sqrt(c2) / c1 * m / (sqrt(v) + epsilon); amsgrad: max of v"
ADAM_TORCH = "p -= lr / c1 * m / (sqrt(v / c2) + epsilon); amsgrad: max of v, over c2"
ADAM_OPTAX = "p -= lr * m / c1 / (sqrt(v / c2 + epsilon_root) + epsilon); amsgrad: max of v / c2"
SCHEDULE_FREE = "z -= rate * (g {}+ weight_decay * y); x = (1 - c) * x + c * z"

CONVENTIONS: Mapping[str, Mapping[str, Convention]] = {
    "SGD": {
        "paper": _row(
            "Polyak 1964, Sutskever 2013",
            "b = momentum * b + (1 - dampening) * g, first b = g; p -= lr * b; "
            "nesterov: lr * (g + momentum * b)",
        ),
        "keras": _row(
            "SGD",
            "b = momentum * b + lr * g; p -= b; nesterov: lr * g + momentum * b",
            rate_in_momentum=True,
            nesterov_may_be_alone=True,
        ),
        "torch": _row(
            "SGD",
            "b = momentum * b + (1 - dampening) * g, first b = g; p -= lr * b; "
            "nesterov: lr * (g + momentum * b)",
            decay="coupled",
            learning_rate=0.001,
        ),
        "optax": _row(
            "sgd",
            "b = momentum * b + g; p -= lr * b; nesterov: lr * (g + momentum * b)",
            learning_rate=REQUIRED,
            nesterov_may_be_alone=True,
        ),
        "tfjs": _row(
            "sgd, momentum",
            "b = momentum * b + g; p -= lr * b; nesterov: lr * (g + momentum * b)",
            learning_rate=REQUIRED,
            nesterov_may_be_alone=True,
        ),
    },
    "Adagrad": {
        "paper": _row("Duchi 2011", "a += g**2; p -= lr * g / (sqrt(a) + epsilon)"),
        "keras": _row(
            "Adagrad",
            "a += g**2; p -= lr * g / sqrt(a + epsilon)",
            learning_rate=0.001,
            initial_accumulator_value=0.1,
            epsilon=1e-7,
            epsilon_in_root=True,
        ),
        "torch": _row(
            "Adagrad",
            "a += g**2; p -= lr / (1 + (t - 1) * learning_rate_decay) * g / (sqrt(a) + epsilon)",
            decay="coupled",
        ),
        "optax": _row(
            "adagrad",
            "a += g**2; p -= lr * g / sqrt(a + epsilon), nothing where a = 0",
            learning_rate=REQUIRED,
            initial_accumulator_value=0.1,
            epsilon=1e-7,
            epsilon_in_root=True,
            rests_at_zero=True,
        ),
        "tfjs": _row(
            "adagrad",
            "a += g**2; p -= lr * g / sqrt(a + epsilon)",
            learning_rate=REQUIRED,
            initial_accumulator_value=0.1,
            epsilon=1e-7,
            epsilon_in_root=True,
        ),
    },
    "RMSprop": {
        "paper": _row(
            "Tieleman 2012, Graves 2013",
            "u = lr * g / sqrt(v + epsilon), centered sqrt(v - a**2 + epsilon); "
            "b = momentum * b + u; p -= b",
        ),
        "keras": _row(
            "RMSprop",
            "u = lr * g / sqrt(v + epsilon), centered sqrt(v - a**2 + epsilon); "
            "b = momentum * b + u; p -= b",
        ),
        "torch": _row(
            "RMSprop",
            "u = g / (sqrt(v) + epsilon), centered sqrt(v - a**2) + epsilon; "
            "b = momentum * b + u; p -= lr * b",
            decay="coupled",
            learning_rate=0.01,
            rho=0.99,
            epsilon=1e-8,
            eps_in_sqrt=False,
            rate_after_momentum=True,
        ),
        "optax": _row(
            "rmsprop",
            "u = lr * g / sqrt(v + epsilon), centered sqrt(v - a**2 + epsilon), or sqrt(v) + "
            "epsilon; b = momentum * b + u; p -= b; nesterov: u + momentum * b; "
            "bias_correction: v and a over 1 - rho**t",
            learning_rate=REQUIRED,
            nesterov_may_be_alone=True,
            epsilon=1e-8,
        ),
        "tfjs": _row(
            "rmsprop",
            "u = lr * g / sqrt(v + epsilon), centered sqrt(v - a**2 - epsilon), sqrt(epsilon) "
            "where that is no number; b = momentum * b + u; p -= b",
            learning_rate=REQUIRED,
            subtracts_epsilon=True,
        ),
    },
    "Adadelta": {
        "paper": _row(
            "Zeiler 2012",
            "a = rho * a + (1 - rho) * g**2; u = sqrt(d + epsilon) / sqrt(a + epsilon) * g; "
            "d = rho * d + (1 - rho) * u**2; p -= lr * u",
        ),
        "keras": _row("Adadelta", "the paper's", learning_rate=0.001, epsilon=1e-7),
        "torch": _row("Adadelta", "the paper's", decay="coupled", rho=0.9),
        "optax": _row(
            "adadelta",
            "the paper's",
            decay="coupled",
            learning_rate=REQUIRED,
            rho=0.9,
        ),
        "tfjs": _row(
            "adadelta",
            "the paper's, but u is over the root of a from before the update",
            learning_rate=0.001,
            epsilon=1e-7,
            divides_by_earlier=True,
        ),
    },
    "Adam": {
        "paper": _row("Kingma 2015, Reddi 2018", ADAM_TORCH),
        "keras": _row("Adam", ADAM_KERAS, epsilon=1e-7, epsilon_hat=True),
        "torch": _row("Adam", ADAM_TORCH, decay="coupled"),
        "optax": _row(
            "adam, amsgrad", ADAM_OPTAX, learning_rate=REQUIRED, maximum_of_corrected=True
        ),
        "tfjs": _row("adam", "p -= lr * m / c1 / (sqrt(v / c2) + epsilon)", epsilon=1e-7),
    },
    "AdamW": {
        "paper": _row("Loshchilov 2019", ADAM_TORCH),
        "keras": _row("AdamW", ADAM_KERAS, epsilon=1e-7, epsilon_hat=True, weight_decay=0.004),
        "torch": _row("AdamW", ADAM_TORCH),
        "optax": _row(
            "adamw",
            ADAM_OPTAX,
            learning_rate=REQUIRED,
            weight_decay=1e-4,
            maximum_of_corrected=True,
        ),
    },
    "Adamax": {
        "paper": _row(
            "Kingma 2015", "u = max(beta_2 * u, abs(g)); p -= lr / c1 * m / (u + epsilon)"
        ),
        "keras": _row(
            "Adamax",
            "u = max(beta_2 * u, abs(g)); p -= lr / c1 * m / (u + epsilon)",
            learning_rate=0.001,
            epsilon=1e-7,
        ),
        "torch": _row(
            "Adamax",
            "u = max(beta_2 * u, abs(g) + epsilon); p -= lr / c1 * m / u",
            decay="coupled",
            epsilon_in_maximum=True,
        ),
        "optax": _row(
            "adamax, adamaxw",
            "u = max(beta_2 * u, abs(g) + epsilon); p -= lr / c1 * m / u",
            learning_rate=REQUIRED,
            epsilon_in_maximum=True,
        ),
        "tfjs": _row(
            "adamax",
            "u = max(beta_2 * u, abs(g)); p -= rate / c1 * m / (u + epsilon), "
            "rate = lr / (1 + (t - 1) * learning_rate_decay)",
            epsilon=1e-7,
        ),
    },
    "Nadam": {
        "paper": _row(
            "Dozat 2016",
            "u(t) = beta_1 * (1 - 0.5 * 0.96**(t * momentum_decay)), U(t) their product; "
            "p -= lr * (u(t+1) * m / (1 - U(t+1)) + (1 - u(t)) * g / (1 - U(t))) / "
            "(sqrt(v / c2) + epsilon)",
        ),
        "keras": _row(
            "Nadam", "the paper's", learning_rate=0.001, epsilon=1e-7, momentum_decay=1.0
        ),
        "torch": _row("NAdam", "the paper's"),
        "optax": _row(
            "nadam, nadamw",
            "p -= lr * (beta_1 * m / (1 - beta_1**(t+1)) + (1 - beta_1) * g / c1) / "
            "(sqrt(v / c2 + epsilon_root) + epsilon)",
            learning_rate=REQUIRED,
            constant_momentum=True,
        ),
    },
    "RAdam": {
        "paper": _row(
            "Liu 2020",
            "r_t > threshold: p -= lr * r * m / c1 / (sqrt(v / c2) + epsilon), else lr * m / c1",
        ),
        "torch": _row(
            "RAdam",
            "r_t > 5: p -= lr * r * sqrt(c2) / c1 * m / (sqrt(v) + epsilon), else lr * m / c1",
            threshold=5.0,
            epsilon_hat=True,
        ),
        "optax": _row(
            "radam",
            "r_t >= threshold: p -= lr * r * m / c1 / (sqrt(v / c2 + epsilon_root) + epsilon), "
            "else lr * m / c1",
            learning_rate=REQUIRED,
            threshold=5.0,
            rectifies_at_threshold=True,
        ),
    },
    "Rprop": {
        "paper": _row(
            "Riedmiller 1993, Igel 2000",
            "z = clip(z * eta, min_step_size, max_step_size); g = 0 where its sign has changed; "
            "p -= sign(g) * z",
        ),
        "torch": _row("Rprop", "the paper's"),
        "optax": _row(
            "rprop",
            "the paper's, but p moves by the step of the update before, nothing where the sign has "
            "changed; z stands still where a sign is 0",
            learning_rate=REQUIRED,
            one_late=True,
        ),
    },
    "ASGD": {
        "paper": _row(
            "Polyak 1992, Bottou 2010",
            "p -= eta * lambd * p + eta * g, eta = lr at first; "
            "eta = lr / (1 + lambd * lr * t)**alpha",
        ),
        "torch": _row("ASGD", "the paper's", decay="coupled"),
    },
    "Ftrl": {
        "paper": _row(
            "McMahan 2013",
            "l += g + 2 * l2_shrinkage * p - (n**k - a**k) / lr * p with n = a + g**2, "
            "k = -learning_rate_power; p = (clip(l, -l1, l1) - l) / ((n**k + beta) / lr + 2 * l2)",
        ),
        "keras": _row("Ftrl", "the paper's"),
    },
    "Lion": {
        "paper": _row(
            "Chen 2023",
            "p -= lr * sign(beta_1 * m + (1 - beta_1) * g); m = beta_2 * m + (1 - beta_2) * g",
        ),
        "keras": _row("Lion", "the paper's", learning_rate=0.001),
        "optax": _row("lion", "the paper's", learning_rate=REQUIRED, weight_decay=1e-3),
    },
    "Lamb": {
        "paper": _row(
            "You 2020",
            "u = m / c1 / (sqrt(v / c2) + epsilon) + weight_decay * p; "
            "p -= lr * norm(p) / norm(u) * u",
            decay="inside",
        ),
        "keras": _row(
            "Lamb",
            "u = m / c1 / (sqrt(v / c2) + epsilon); p -= lr * norm(p) / norm(u) * u, "
            "p already decayed",
            epsilon=1e-7,
        ),
        "optax": _row(
            "lamb",
            "u = m / c1 / (sqrt(v / c2 + epsilon_root) + epsilon) + weight_decay * p; "
            "p -= lr * norm(p) / norm(u) * u",
            decay="inside",
            learning_rate=REQUIRED,
        ),
    },
    "Lars": {
        "paper": _row(
            "You 2017",
            "u = lr * trust_coefficient * norm(p) / (norm(g) + weight_decay * norm(p) + epsilon) * "
            "(g + weight_decay * p); b = momentum * b + u; p -= b; nesterov: u + momentum * b",
            decay="inside",
        ),
        "optax": _row(
            "lars",
            "u = lr * trust_coefficient * norm(p) / (norm(g) + epsilon) * g; "
            "b = momentum * b + u; p -= b; nesterov: u + momentum * b",
            decay="coupled",
            learning_rate=REQUIRED,
            nesterov_may_be_alone=True,
        ),
    },
    "Yogi": {
        "paper": _row(
            "Zaheer 2018",
            "v -= (1 - beta_2) * sign(v - g**2) * g**2; p -= lr * m / (sqrt(v) + epsilon)",
        ),
        "optax": _row(
            "yogi",
            "v -= (1 - beta_2) * sign(v - g**2) * g**2; p -= lr * m / c1 / "
            "(sqrt(v / c2 + epsilon_root) + epsilon); m starts where v does",
            learning_rate=REQUIRED,
            counts=True,
            corrects_bias=True,
            initial_m="initial_accumulator_value",
        ),
    },
    "AdaBelief": {
        "paper": _row(
            "Zhuang 2020",
            "v = beta_2 * v + (1 - beta_2) * (g - m)**2 + epsilon_root; "
            "p -= lr * m / c1 / (sqrt(v / c2) + epsilon)",
        ),
        "optax": _row(
            "adabelief",
            "the paper's",
            learning_rate=REQUIRED,
            epsilon=1e-16,
            epsilon_root=1e-16,
        ),
    },
    "Adan": {
        "paper": _row(
            "Xie 2022",
            "d = g - previous g; m of g, v of d, n of (g + beta_2 * d)**2; "
            "p -= lr * (m / c1 + beta_2 * v / c2) / (sqrt(n / c3) + epsilon)",
        ),
        "optax": _row(
            "adan",
            "d = g - previous g; m of g, v of d, n of (g + (1 - beta_2) * d)**2; p -= lr * "
            "(m / c1 + (1 - beta_2) * v / c2) / (sqrt(n / c3 + epsilon_root) + epsilon)",
            learning_rate=REQUIRED,
            epsilon_root=1e-8,
            adds_complement=True,
        ),
    },
    "NovoGrad": {
        "paper": _row(
            "Ginsburg 2019",
            "v = beta_2 * v + (1 - beta_2) * norm(g)**2, first norm(g)**2; m = beta_1 * m + "
            "g / (sqrt(v) + epsilon) + weight_decay * p; p -= lr * m",
            decay="inside",
        ),
        "optax": _row(
            "novograd",
            "the paper's",
            decay="inside",
            learning_rate=REQUIRED,
            beta_1=0.9,
            beta_2=0.25,
            epsilon=1e-6,
        ),
    },
    "SignSGD": {
        "paper": _row("Bernstein 2018", "p -= lr * sign(g)"),
        "optax": _row("sign_sgd", "p -= lr * sign(g)", learning_rate=REQUIRED),
    },
    "Signum": {
        "paper": _row("Bernstein 2018", "m = momentum * m + (1 - momentum) * g; p -= lr * sign(m)"),
        "optax": _row("signum", "the paper's", learning_rate=REQUIRED),
    },
    "ClipUp": {
        "paper": _row(
            "Toklu 2020",
            "v = momentum * v + lr * g / norm(g), norms over all arrays; "
            "v *= min(1, max_speed / norm(v)); p -= v",
        ),
    },
    "RowwiseAdagrad": {
        "paper": _row(
            "Mudigere 2022", "a[row] += mean(g[row]**2); p -= lr * g / (sqrt(a[row]) + epsilon)"
        ),
    },
    "Fromage": {
        "paper": _row("Bernstein 2020", "p = (p - lr * norm(p) / norm(g) * g) / sqrt(1 + lr**2)"),
        "optax": _row("fromage", "the paper's", learning_rate=REQUIRED),
    },
    "AdEMAMix": {
        "paper": _row(
            "Pagliardini 2024",
            "m_2 = beta_3 * m_2 + (1 - beta_3) * g; "
            "p -= lr * (m_1 / c1 + alpha * m_2) / (sqrt(v / c2) + epsilon)",
        ),
        "optax": _row("ademamix", "the paper's", learning_rate=REQUIRED),
    },
    "ScheduleFreeAdamW": {
        "paper": _row(
            "Defazio 2024",
            SCHEDULE_FREE.format("/ (sqrt(v / c2) + epsilon) "),
            decay="inside",
        ),
        "keras": _row(
            "ScheduleFreeAdamW",
            "z -= rate * g / (sqrt(v / c2) + epsilon); x = (1 - 1/t) * x + z / t",
            uniform_weights=True,
        ),
        "optax": _row(
            "contrib.schedule_free_adamw",
            SCHEDULE_FREE.format("/ (sqrt(v / c2) + epsilon) ")
            + "; the rate of z is that of the update before",
            decay="inside",
            is_one_late=True,
        ),
    },
    "ScheduleFreeSGD": {
        "paper": _row("Defazio 2024", SCHEDULE_FREE.format(""), decay="inside"),
        "optax": _row(
            "contrib.schedule_free_sgd",
            SCHEDULE_FREE.format("") + "; the rate of z is that of the update before",
            decay="inside",
            is_one_late=True,
        ),
    },
    "Prodigy": {
        "paper": _row(
            "Mishchenko 2023",
            "p -= lr * d * (m / (sqrt(v) + d * epsilon) + weight_decay * p); "
            "d = max(d, estim_lr_coef * r / sum(abs(s)))",
            decay="inside",
        ),
        "optax": _row(
            "contrib.prodigy",
            "the paper's with lr * sqrt(c2) / c1 for lr, and epsilon times the new d",
            decay="inside",
            counts=True,
            corrects_bias=True,
            epsilon_of_new=True,
        ),
    },
    "Adafactor": {
        "paper": _row(
            "Shazeer 2018",
            "v of rows and columns, or whole; u = g / sqrt(v), clipped; "
            "p -= max(epsilon_2, rms(p)) * min(lr, 1 / sqrt(t)) * u",
        ),
        "keras": _row(
            "Adafactor",
            "the paper's; v of the last two axes; relative_step makes no difference",
            learning_rate=0.001,
            always_relative=True,
        ),
        "torch": _row(
            "Adafactor",
            "the paper's, but v = r * c / max(mean(r), epsilon_1), no less than epsilon_1**2, of "
            "g**2 alone; rms(p) before the decay; epsilon_1 is the dtype's",
            epsilon_1=None,
            clamps=True,
            rms_before_decay=True,
            always_relative=True,
        ),
        "optax": _row(
            "adafactor",
            "the paper's with lr as it is, v of the two largest axes where both are long; then "
            "momentum and weight_decay_rate",
            learning_rate=1.0,
            relative_step=False,
            min_dim_size_to_factor=128,
            factors_largest=True,
            none={"clip_threshold": math.inf},
        ),
    },
    "SM3": {
        "paper": _row(
            "Anil 2019",
            "a = g**2 + min over axes, their maxima kept; u = g / sqrt(a); "
            "m = momentum * m + (1 - momentum) * u; p -= lr * m",
        ),
        "optax": _row(
            "sm3",
            "a = g**2 + min over axes, their maxima kept; u = g / sqrt(a + epsilon); "
            "m = momentum * m + (1 - momentum) * u; p -= lr * m",
            learning_rate=REQUIRED,
            epsilon=1e-8,
        ),
    },
    "Muon": {
        "paper": _row(
            "Jordan 2024",
            "b = momentum * b + g; x = g + momentum * b, orthogonal; "
            "p -= lr * sqrt(max(1, rows / columns)) * x; Adam for other arrays; "
            "decay lr * weight_decay * p",
            decay="inside",
        ),
        "keras": _row(
            "Muon",
            "b = momentum * b + g; x = g + momentum * b, orthogonal; "
            "p -= lr * rms_rate * sqrt(max(rows, columns)) * x; Keras's Adam for other arrays; "
            "decay lr * weight_decay * p",
            decay="inside",
            learning_rate=0.001,
            weight_decay=0.004,
            adam_weight_decay=0.004,
            scale="larger",
            ns_epsilon=1e-7,
            epsilon_hat=True,
            none={"rms_rate": None, "weight_decay": 0.0, "adam_weight_decay": 0.0},
        ),
        "torch": _row(
            "Muon",
            "b = momentum * b + (1 - momentum) * g; x = (1 - momentum) * g + momentum * b, "
            "orthogonal; p -= lr * sqrt(max(1, rows / columns)) * x; "
            "matrices only; decay lr * weight_decay * p",
            decay="inside",
            learning_rate=0.001,
            weight_decay=0.1,
            momentum_form="average",
            bounds_norm=True,
            matrices_only=True,
        ),
        "optax": _row(
            "contrib.muon",
            "b = momentum * b + (1 - momentum) * g; x = momentum * b / (1 - momentum**(t+1)) + "
            "(1 - momentum) * g / (1 - momentum**t), orthogonal; "
            "p -= lr * sqrt(max(1, columns / rows)) * x; nadam for other arrays; "
            "decay lr * weight_decay * p",
            decay="inside",
            learning_rate=REQUIRED,
            epsilon=1e-8,
            counts=True,
            momentum_form="corrected",
            scale="columns",
            adam_nesterov=True,
            adam_decay_times_ratio=True,
        ),
    },
}
