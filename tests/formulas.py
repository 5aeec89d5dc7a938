"""Built-in rules as formulas, and steps by formulas whose results are compared bit by bit.

Run as a script, this prints the hashes of all results as JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from references import REFERENCES, Configuration

import instep
from instep import gallery

M = "m = beta_1*m + (1 - beta_1)*g"
V = "v = beta_2*v + (1 - beta_2)*g**2"
M_HAT, V_HAT = "m/(1 - beta_1**step)", "v/(1 - beta_2**step)"
MOMENTS = {"beta_1": 0.9, "beta_2": 0.999}
ADAM = {**MOMENTS, "epsilon": 1e-8, "epsilon_root": 0.0}
RMSPROP = {"rho": 0.9, "epsilon": 1e-7, "eps_in_sqrt": True, "bias_correction": False,
           "initial_accumulator_value": 0.0}  # fmt: skip
SPREAD = "v = rho*v + (1 - rho)*g**2; c = 1 - rho**step if bias_correction else 1"
CENTERED = f"{SPREAD}; a = rho*a + (1 - rho)*g; spread = max(v/c - (a/c)**2, 0)"
SCALED = "u = lr*g / (sqrt(spread + epsilon) if eps_in_sqrt else sqrt(spread) + epsilon)"
HEAVY = "b = momentum*b + u; p -= momentum*b + u if nesterov else b"
BALL = {"momentum": 0.9, "nesterov": False}
START = "initial_accumulator_value"
SCHEDULE_FREE = {"beta_1": 0.9, "warmup_steps": 0, "weight_lr_power": 2, "weight_decay": 0.0}
WARM = "rate = lr*min(1, step/warmup_steps); before = z"
INTERPOLATED = """
    largest = max(largest, rate)
    weight = largest**weight_lr_power
    weights += weight
    share = weight/weights
    last = last if last > 0 else beta_1
    x = (p - (1 - last)*before) / last
    x = (1 - share)*x + share*z
    p = beta_1*x + (1 - beta_1)*z
    last = beta_1
"""


@dataclass(frozen=True)
class Known:
    """A built-in rule as a formula.

    Attributes
    ----------
    rule
        The class.
    formula, state, hyperparameters, numbers
        What makes a formula of it. State and numbers stand in the order of the class's.
    optional
        The slots that a configuration of the class must call for.
    """

    rule: str
    formula: str
    state: str | Mapping[str, float | str] = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    numbers: str | Mapping[str, float | str] = ""
    optional: str = ""

    def made(self) -> Any:
        """Return the class of the formula."""
        return instep.rule(
            self.rule,
            state=self.state,
            numbers=self.numbers,
            formula=self.formula,
            **self.hyperparameters,
        )

    def told(self, configuration: Configuration) -> dict[str, Any]:
        """Return what of a configuration the formula is told, too."""
        names = {"learning_rate", "weight_decay", *self.hyperparameters}
        return {k: v for k, v in configuration.items() if k in names and v is not None}

    def configurations(self) -> Iterator[Configuration]:
        """Yield those of the class that this is the formula of."""
        reference = REFERENCES[self.rule]
        for each in reference.configurations:
            used = reference.initial_state(each, np.zeros((1, 1)))
            if [slot for slot in used if reference.slots[slot]] == self.optional.split():
                yield each


KNOWN = (
    Known("SGD", "p -= lr*g"),
    Known("SGD", """b = where(step == 1, g, momentum*b + (1 - dampening)*g)
          p -= lr*(g + momentum*b if nesterov else b)""", "b", {**BALL, "dampening": 0.0},
          optional="momentum"),
    Known("ASGD", """eta = where(step == 1, lr, eta); p -= lambd*eta*p + eta*g
          ax = where(mu == 1, p, ax + mu*(p - ax))
          eta = lr / (1 + lambd*lr*step)**alpha; mu = 1/max(1, step - t0)""", "ax",
          {"lambd": 1e-4, "alpha": 0.75, "t0": 1e6}, {"eta": 0.0, "mu": 1.0}),
    Known("Adagrad", """a += g**2
          p -= lr/(1 + (step - 1)*learning_rate_decay) * g / (sqrt(a) + epsilon)""", {"a": START},
          {"epsilon": 1e-10, "learning_rate_decay": 0.0, START: 0.0}),
    Known("RMSprop", f"{SPREAD}; spread = v/c; {SCALED}; p -= u", {"v": START}, RMSPROP),
    Known("RMSprop", f"{SPREAD}; spread = v/c; {SCALED}; {HEAVY}", {"v": START, "b": 0},
          {**RMSPROP, **BALL}, optional="momentum"),
    Known("RMSprop", f"{CENTERED}; {SCALED}; p -= u", {"v": START, "a": 0}, RMSPROP,
          optional="mean_gradient"),
    Known("RMSprop", f"{CENTERED}; {SCALED}; {HEAVY}", {"v": START, "a": 0, "b": 0},
          {**RMSPROP, **BALL}, optional="mean_gradient momentum"),
    Known("Adadelta", """a = rho*a + (1 - rho)*g**2; u = sqrt(d + epsilon) / sqrt(a + epsilon) * g
          d = rho*d + (1 - rho)*u**2; p -= lr*u""", "a d", {"rho": 0.95, "epsilon": 1e-6}),
    Known("Ftrl", """total = n + g**2
          now = total**-learning_rate_power; earlier = n**-learning_rate_power
          z += g + 2*l2_shrinkage_regularization_strength*p - (now - earlier)/lr*p
          clipped = min(max(z, -l1_regularization_strength), l1_regularization_strength)
          divisor = (now + beta)/lr + 2*l2_regularization_strength
          p = where(divisor > 0, (clipped - z)/divisor, 0); n = total""", {"n": START, "z": 0},
          {"learning_rate_power": -0.5, "l1_regularization_strength": 0.0,
           "l2_regularization_strength": 0.0, "l2_shrinkage_regularization_strength": 0.0,
           "beta": (0.0, 0.0, 1e30), START: 0.1}),
    *(Known(name, f"{M}; {V}; p -= lr*({M_HAT}) / (sqrt({V_HAT} + epsilon_root) + epsilon)", "m v",
            ADAM) for name in ("Adam", "AdamW")),
    *(Known(name, f"""{M}; {V}; w = max(w, v)
            p -= lr*{M_HAT} / (sqrt(w/(1 - beta_2**step) + epsilon_root) + epsilon)""", "m v w",
            ADAM, optional="v_max") for name in ("Adam", "AdamW")),
    Known("Adamax", f"""{M}; u = max(beta_2*u, abs(g))
          p -= lr/(1 + (step - 1)*learning_rate_decay) * ({M_HAT})/(u + epsilon)""", "m u",
          {**MOMENTS, "epsilon": 1e-8, "learning_rate_decay": 0.0}),
    Known("Nadam", f"""{M}; {V}
          mu = beta_1*(1 - 0.5*0.96**(step*momentum_decay))
          ahead = beta_1*(1 - 0.5*0.96**((step + 1)*momentum_decay))
          product *= mu
          u = ahead*m/(1 - product*ahead) + (1 - mu)*g/(1 - product)
          p -= lr*u / (sqrt({V_HAT} + epsilon_root) + epsilon)""", "m v",
          {**ADAM, "momentum_decay": 0.004}, {"product": 1.0}),
    Known("RAdam", f"""{M}; {V}
          long = 2/(1 - beta_2) - 1
          due = 1 - beta_2**step; now = long - 2*step*(1 - due)/due
          r = sqrt((now - 4)*(now - 2)*long / ((long - 4)*(long - 2)*now))
          ahead = beta_1*m/(1 - beta_1**(step + 1)) + (1 - beta_1)*g/(1 - beta_1**step)
          u = ahead if nesterov else {M_HAT}
          p -= lr * (r*u/(sqrt({V_HAT} + epsilon_root) + epsilon) if now > threshold else u)""",
          "m v", {**ADAM, "threshold": 4.0, "nesterov": False}),
    Known("Lion", "p -= lr*sign(beta_1*m + (1 - beta_1)*g); m = beta_2*m + (1 - beta_2)*g", "m",
          {"beta_1": 0.9, "beta_2": 0.99}),
    Known("Yogi", f"""{M}; v -= (1 - beta_2)*sign(v - g**2)*g**2
          p -= lr*m / (sqrt(v + epsilon_root) + epsilon)""", {"m": 0, "v": START},
          {**ADAM, START: 1e-6}),
    Known("AdaBelief", f"""{M}; v = beta_2*v + (1 - beta_2)*(g - m)**2 + epsilon_root
          p -= lr*({M_HAT}) / (sqrt({V_HAT}) + epsilon)""", "m v", ADAM),
    Known("SignSGD", "p -= lr*sign(g)"),
    Known("Signum", "m = momentum*m + (1 - momentum)*g; p -= lr*sign(m)", "m", {"momentum": 0.9}),
    Known("Rprop", """size = lr if step == 1 else size
          agreement = sign(g)*sign(before)
          factor = where(agreement > 0, eta_plus, where(agreement < 0, eta_minus, 1))
          size = min(max(factor*size, min_step_size), max_step_size)
          before = where(agreement < 0, 0, g); p -= size*sign(before)""", "before size",
          {"eta_minus": 0.5, "eta_plus": 1.2, "min_step_size": 1e-6, "max_step_size": 50.0}),
    Known("Adan", """d = where(step == 1, 0*g, g - before)
          m = beta_1*m + (1 - beta_1)*g; v = beta_2*v + (1 - beta_2)*d
          n = beta_3*n + (1 - beta_3)*(g + beta_2*d)**2
          u = m/(1 - beta_1**step) + beta_2*v/(1 - beta_2**step)
          p -= lr*u / (sqrt(n/(1 - beta_3**step) + epsilon_root) + epsilon); before = g""",
          "m v n before", {**ADAM, "beta_3": 0.99}),
    Known("AdEMAMix", f"""{M}; slow = beta_3*slow + (1 - beta_3)*g; {V}
          p -= lr*({M_HAT} + alpha*slow) / (sqrt({V_HAT} + epsilon_root) + epsilon)""", "m slow v",
          {**ADAM, "beta_3": 0.9999, "alpha": 5.0}),
    Known("ScheduleFreeSGD", f"{WARM}; z -= rate*(g + weight_decay*p); {INTERPOLATED}",
          {"z": "p"}, SCHEDULE_FREE, "largest weights last"),
    Known("ScheduleFreeAdamW", f"""{WARM}; {V}
          z -= rate*(g / (sqrt({V_HAT}) + epsilon) + weight_decay*p); {INTERPOLATED}""",
          {"z": "p", "v": 0}, {**SCHEDULE_FREE, "beta_2": 0.999, "epsilon": 1e-8},
          "largest weights last"),
    Known("Lamb", f"""{M}; {V}
          u = {M_HAT} / (sqrt({V_HAT} + epsilon_root) + epsilon) + weight_decay*p
          is_scaled = trust_ratio and norm(p) > 0 and norm(u) > 0
          p -= lr*where(is_scaled, norm(p)/norm(u), 1)*u""", "m v",
          {**ADAM, "trust_ratio": True, "weight_decay": 0.0}),
    Known("Lars", """length = norm(p); steepness = norm(g)
          ratio = trust_coefficient*length / (steepness + weight_decay*length + epsilon)
          rate = lr*where(trust_ratio and length > 0 and steepness > 0, ratio, 1)
          u = rate*(g + weight_decay*p); b = momentum*b + u
          p -= momentum*b + u if nesterov else b""", "b",
          {**BALL, "trust_ratio": True, "trust_coefficient": 0.001, "epsilon": 0.0,
           "weight_decay": 0.0}, optional="momentum"),
    Known("NovoGrad", """v = where(step == 1, norm(g)**2, beta_2*v + (1 - beta_2)*norm(g)**2)
          u = g / (sqrt(v + epsilon_root) + epsilon) + weight_decay*p
          m = where(step == 1, u, beta_1*m + u); p -= lr*m""", "m",
          {**ADAM, "weight_decay": 0.0}, "v"),
    Known("Fromage", """length = max(norm(p), min_norm); steepness = max(norm(g), min_norm)
          ratio = where(length > 0 and steepness > 0, length/steepness, 1)
          p = (p - lr*ratio*g) / sqrt(1 + lr**2)""", "", {"min_norm": 1e-6}),
    Known("Prodigy", """size = d*lr
          share = (d if safeguard_warmup else size)*d/estim_lr0
          kept = sqrt(beta_2) if beta_3 < 0 else beta_3
          r = kept*r + d/estim_lr0*size*sum(g*(p_0 - p), all)
          s = kept*s + share*g; length = sum(abs(s), all)
          m = beta_1*m + (1 - beta_1)*d*g; v = beta_2*v + (1 - beta_2)*(d*g)**2
          p -= size*(m / (sqrt(v) + d*epsilon) + weight_decay*p)
          d = max(d, estim_lr_coef*r/length if length > 0 else 0)""",
          {"m": 0, "v": 0, "s": 0, "p_0": "p"},
          {**MOMENTS, "beta_3": (-1.0, -1.0, 1.0), "epsilon": 1e-8, "estim_lr0": 1e-6,
           "estim_lr_coef": 1.0, "safeguard_warmup": False, "weight_decay": 0.0},
          {"d": "estim_lr0", "r": 0}),
)  # fmt: skip


@cache
def results() -> dict[str, str]:
    """Return hashes of parameters and state after a few steps, by rule, dtype and size."""
    found = {}
    for name in gallery.__all__:
        for dtype in (np.float32, np.float64):
            for size in (0, 1, 7, 31, 32, 33, 257, 1025, 16_385, 200_003):
                rng = np.random.default_rng(size)
                params = [rng.standard_normal(size).astype(dtype) for _ in range(2)]
                opt = getattr(gallery, name)(params, learning_rate=0.01, clipvalue=2.0)
                for _ in range(3):
                    opt.step([rng.standard_normal(size).astype(dtype) for _ in range(2)])
                arrays = [*params, *(a for s in opt.state for a in s.values())]
                digest = hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays))
                found[f"{name} {np.dtype(dtype).name} {size}"] = digest.hexdigest()
    return found


if __name__ == "__main__":
    print(json.dumps(results()))
