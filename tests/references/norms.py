"""A norm for each array."""

from __future__ import annotations

from quantities import (
    Quantity,
    maximum,
    norm,
    sqrt,
    total,
)

from references.reference import (
    REFERENCES,
    Reference,
    State,
)


def ratio_of(numerator: Quantity, denominator: Quantity) -> Quantity:
    """Divide two norms; where one is zero, do without."""
    if not (numerator.value and denominator.value):
        return Quantity.exact(1.0)
    return numerator / denominator


def lamb(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
    epsilon_root: float = 0.0,
    trust_ratio: bool = True,
    weight_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """You et al. 2020, algorithm 2, its phi the identity."""
    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = beta_2 * state["v"] + (1 - beta_2) * g * g
    m_hat = m / (1 - beta_1**step)
    v_hat = v / (1 - beta_2**step)
    update = m_hat / (sqrt(v_hat + epsilon_root) + epsilon) + weight_decay * p
    ratio = ratio_of(norm(p), norm(update)) if trust_ratio else 1.0
    return p - learning_rate * ratio * update, {"m": m, "v": v}


REFERENCES["Lamb"] = Reference(
    lamb,
    slots={"m": None, "v": None},
    configurations=(
        {},
        {"learning_rate": 0.01, "beta_1": 0.5, "beta_2": 0.95, "epsilon": 1e-4},
        {"weight_decay": 0.1, "epsilon_root": 1e-6},
        {"trust_ratio": False, "weight_decay": 0.1},
    ),
    elementwise=False,
    ulps=6,
)


def lars(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    trust_ratio: bool = True,
    trust_coefficient: float = 0.001,
    epsilon: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """You et al. 2017, algorithm 1; Nesterov's variant as in `sgd`."""
    ratio = Quantity.exact(1.0)
    if trust_ratio and norm(p).value and norm(g).value:
        ratio = trust_coefficient * norm(p) / (norm(g) + weight_decay * norm(p) + epsilon)
    update = learning_rate * ratio * (g + weight_decay * p)
    b = momentum * state["momentum"] + update if "momentum" in state else update
    return p - (update + momentum * b if nesterov else b), {"momentum": b}


REFERENCES["Lars"] = Reference(
    lars,
    slots={"momentum": "momentum"},
    configurations=(
        {},
        {"learning_rate": 1.0, "trust_coefficient": 0.02, "epsilon": 0.1, "momentum": 0.5},
        {"nesterov": True, "weight_decay": 0.1},
        {"trust_ratio": False, "weight_decay": 0.1},
    ),
    elementwise=False,
)


def novograd(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    beta_1: float = 0.95,
    beta_2: float = 0.98,
    epsilon: float = 1e-8,
    epsilon_root: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Quantity, State]:
    """Ginsburg et al. 2019, algorithm 1."""
    squares = total(g * g)
    v = squares if step == 1 else beta_2 * state["v"] + (1 - beta_2) * squares
    m = beta_1 * state["m"] + g / (sqrt(v + epsilon_root) + epsilon) + weight_decay * p
    return p - learning_rate * m, {"m": m, "v": v}


REFERENCES["NovoGrad"] = Reference(
    novograd,
    slots={"m": None, "v": None},
    configurations=(
        {},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.7, "epsilon": 1e4},
        {"weight_decay": 0.1, "epsilon_root": 1e10},
    ),
    scalars=("v",),
    elementwise=False,
)


def fromage(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.01,
    min_norm: float = 1e-6,
) -> tuple[Quantity, State]:
    """Bernstein et al. 2020, algorithm 1, its norms at least `min_norm`."""
    ratio = ratio_of(maximum(norm(p), min_norm), maximum(norm(g), min_norm))
    return (p - learning_rate * ratio * g) / (1 + learning_rate**2) ** 0.5, {}


REFERENCES["Fromage"] = Reference(
    fromage,
    slots={},
    # The last one's bound lies between the norms in the tests.
    configurations=({}, {"learning_rate": 0.1}, {"min_norm": 2e4}),
    elementwise=False,
)


def clipup(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.075,
    momentum: float = 0.9,
    max_speed: float | None = None,
) -> tuple[Quantity, State]:
    """Toklu et al. 2020, algorithms 1 and 2."""
    limit = 2 * learning_rate if max_speed is None else max_speed
    velocity = momentum * state["velocity"] + learning_rate * g / norm(g)
    if norm(velocity).value > limit:
        velocity = limit * velocity / norm(velocity)
    return p - velocity, {"velocity": velocity}


REFERENCES["ClipUp"] = Reference(
    clipup,
    slots={"velocity": None},
    configurations=(
        {},
        {"learning_rate": 0.5, "momentum": 0.5, "max_speed": 0.25},
        {"learning_rate": 0.01, "max_speed": 10.0},
    ),
    elementwise=False,
)
