"""Built-in rules as formulas, and steps by formulas whose results are compared bit by bit.

Run as a script, this prints the hashes of all results as JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

import instep
from instep import gallery

M = "m = beta_1*m + (1 - beta_1)*g"
V = "v = beta_2*v + (1 - beta_2)*g**2"
MOMENTS = {"beta_1": 0.9, "beta_2": 0.999}


@dataclass(frozen=True)
class Known:
    """A built-in rule as a formula.

    Attributes
    ----------
    rule
        The class.
    formula, state, defaults
        What makes a formula of it.
    given
        What its constructor must be told besides.
    """

    rule: str
    formula: str
    state: str = ""
    defaults: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)

    def made(self) -> Any:
        """Return the class of the formula."""
        return instep.rule(self.rule, state=self.state, formula=self.formula, **self.defaults)


KNOWN = (
    Known("SGD", "p -= lr*g"),
    Known("SGD", "b = where(step == 1, g, momentum*b + g); p -= lr*b", "b", {"momentum": 0.9},
          {"momentum": 0.9}),
    Known("SGD", "b = where(step == 1, g, momentum*b + g); p -= lr*(g + momentum*b)", "b",
          {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
    Known("Adagrad", "a += g**2; p -= lr*g / (sqrt(a) + epsilon)", "a", {"epsilon": 1e-10}),
    Known("RMSprop", "v = rho*v + (1 - rho)*g**2; p -= lr*g / sqrt(v + epsilon)", "v",
          {"rho": 0.9, "epsilon": 1e-7}),
    Known("RMSprop", """v = rho*v + (1 - rho)*g**2; b = momentum*b + lr*g / sqrt(v + epsilon)
          p -= b""", "v b", {"rho": 0.9, "momentum": 0.5, "epsilon": 1e-7}, {"momentum": 0.5}),
    Known("Adadelta", """a = rho*a + (1 - rho)*g**2; u = sqrt(d + epsilon) / sqrt(a + epsilon) * g
          d = rho*d + (1 - rho)*u**2; p -= lr*u""", "a d", {"rho": 0.95, "epsilon": 1e-6}),
    Known("Adam", f"""{M}; {V}
          p -= lr*(m / (1 - beta_1**step)) / (sqrt(v / (1 - beta_2**step)) + epsilon)""", "m v",
          {**MOMENTS, "epsilon": 1e-8}),
    Known("Adam", f"""{M}; {V}; w = max(w, v)
          p -= lr*m / (1 - beta_1**step) / (sqrt(w / (1 - beta_2**step)) + epsilon)""", "m v w",
          {**MOMENTS, "epsilon": 1e-8}, {"amsgrad": True}),
    Known("Adamax", f"{M}; u = max(beta_2*u, abs(g)); p -= lr/(1 - beta_1**step) * m/(u + epsilon)",
          "m u", {**MOMENTS, "epsilon": 1e-8}),
    Known("RAdam", f"""{M}; {V}
          long = 2/(1 - beta_2) - 1
          now = long - 2*step*beta_2**step/(1 - beta_2**step)
          r = sqrt((now - 4)*(now - 2)*long / ((long - 4)*(long - 2)*now))
          scaled = r*m / (sqrt(v / (1 - beta_2**step)) + epsilon)
          p -= lr/(1 - beta_1**step) * where(now > 5, scaled, m)""", "m v",
          {**MOMENTS, "epsilon": 1e-8}),
    Known("Lion", "p -= lr*sign(beta_1*m + (1 - beta_1)*g); m = beta_2*m + (1 - beta_2)*g", "m",
          {"beta_1": 0.9, "beta_2": 0.99}),
    Known("Yogi", f"""{M}; v -= (1 - beta_2)*sign(v - g**2)*g**2
          p -= lr*m / (sqrt(v) + epsilon)""", "m v",
          {**MOMENTS, "epsilon": 1e-3}, {"initial_accumulator_value": 0.0}),
    Known("AdaBelief", f"""{M}; v = beta_2*v + (1 - beta_2)*(g - m)**2 + epsilon
          p -= lr*m / (1 - beta_1**step) / (sqrt(v / (1 - beta_2**step)) + epsilon)""", "m v",
          {**MOMENTS, "epsilon": 1e-8}),
    Known("SignSGD", "p -= lr*sign(g)"),
    Known("Signum", "m = momentum*m + (1 - momentum)*g; p -= lr*sign(m)", "m", {"momentum": 0.9}),
    Known("Adan", """d = where(step == 1, 0*g, g - before)
          m = beta_1*m + (1 - beta_1)*g; v = beta_2*v + (1 - beta_2)*d
          n = beta_3*n + (1 - beta_3)*(g + beta_2*d)**2
          u = m/(1 - beta_1**step) + beta_2*v/(1 - beta_2**step)
          p -= lr*u / (sqrt(n / (1 - beta_3**step)) + epsilon); before = g""", "m v n before",
          {"beta_1": 0.98, "beta_2": 0.92, "beta_3": 0.99, "epsilon": 1e-8}),
    Known("Lamb", f"""{M}; {V}
          u = m/(1 - beta_1**step) / (sqrt(v / (1 - beta_2**step)) + epsilon) + weight_decay*p
          ratio = where(norm(p) > 0 and norm(u) > 0, norm(p)/norm(u), 1)
          p -= lr*ratio*u""", "m v", {**MOMENTS, "epsilon": 1e-6}, {"weight_decay": 0.1}),
    Known("Lars", """length = norm(p); steepness = norm(g)
          ratio = trust_coefficient*length / (steepness + weight_decay*length)
          local = where(length > 0 and steepness > 0, ratio, 1)
          b = momentum*b + lr*local*(g + weight_decay*p); p -= b""", "b",
          {"momentum": 0.9, "trust_coefficient": 0.001}, {"weight_decay": 0.1}),
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
