"""A rate for each element, by the gradients that it has seen."""

from __future__ import annotations

from quantities import (
    Quantity,
    maximum,
    minimum,
    power,
    sqrt,
    where,
)

from references.reference import (
    REFERENCES,
    Reference,
    State,
    hyperparameter,
)


def adagrad(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.01,
    learning_rate_decay: float = 0.0,
    epsilon: float = 1e-10,
) -> tuple[Quantity, State]:
    """Duchi et al. 2011."""
    a = state["accumulator"] + g * g
    rate = learning_rate / (1 + (step - 1) * learning_rate_decay)
    return p - rate * g / (sqrt(a) + epsilon), {"accumulator": a}


REFERENCES["Adagrad"] = Reference(
    adagrad,
    slots={"accumulator": None},
    start={"accumulator": hyperparameter("initial_accumulator_value", 0.0)},
    configurations=(
        {},
        {"initial_accumulator_value": 0.1, "learning_rate_decay": 0.01},
        {"learning_rate": 0.1, "epsilon": 1e-3},
    ),
)


def rmsprop(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    step: int,
    learning_rate: float = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
    nesterov: bool = False,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> tuple[Quantity, State]:
    """Graves 2013, equations 38 to 41, where the mean gradient and the momentum are optional."""
    v = rho * state["mean_square"] + (1 - rho) * g * g
    new = {"mean_square": v}
    correction = 1 - rho**step if bias_correction else 1.0
    v = v / correction
    if "mean_gradient" in state:
        a = new["mean_gradient"] = rho * state["mean_gradient"] + (1 - rho) * g
        a = a / correction
        v = maximum(v - a * a, 0.0)
    u = learning_rate * g / (sqrt(v + epsilon) if eps_in_sqrt else sqrt(v) + epsilon)
    if "momentum" not in state:
        return p - u, new
    b = new["momentum"] = momentum * state["momentum"] + u
    return p - (u + momentum * b if nesterov else b), new


REFERENCES["RMSprop"] = Reference(
    rmsprop,
    slots={"mean_square": None, "mean_gradient": "centered", "momentum": "momentum"},
    start={"mean_square": hyperparameter("initial_accumulator_value", 0.0)},
    configurations=(
        {},
        {"momentum": 0.9},
        {"centered": True},
        {"centered": True, "momentum": 0.9, "rho": 0.99, "learning_rate": 0.01},
        {"eps_in_sqrt": False, "initial_accumulator_value": 1.0},
        {"momentum": 0.9, "nesterov": True, "bias_correction": True, "centered": True},
    ),
    ulps=5,
)


def adadelta(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 1.0,
    rho: float = 0.95,
    epsilon: float = 1e-6,
) -> tuple[Quantity, State]:
    """Zeiler 2012, algorithm 1, with a learning rate."""
    a = rho * state["mean_square"] + (1 - rho) * g * g
    update = sqrt(state["mean_square_update"] + epsilon) / sqrt(a + epsilon) * g
    d = rho * state["mean_square_update"] + (1 - rho) * update * update
    return p - learning_rate * update, {"mean_square": a, "mean_square_update": d}


REFERENCES["Adadelta"] = Reference(
    adadelta,
    slots={"mean_square": None, "mean_square_update": None},
    configurations=({}, {"learning_rate": 0.1, "rho": 0.9, "epsilon": 1e-4}),
)


def ftrl(
    p: Quantity,
    g: Quantity,
    state: State,
    *,
    learning_rate: float = 0.001,
    learning_rate_power: float = -0.5,
    l1_regularization_strength: float = 0.0,
    l2_regularization_strength: float = 0.0,
    l2_shrinkage_regularization_strength: float = 0.0,
    beta: float = 0.0,
) -> tuple[Quantity, State]:
    """McMahan et al. 2013, algorithm 1, its lambda_2 twice the l2 strength, with shrinkage."""
    n = state["accumulator"] + g * g
    root = power(n, -learning_rate_power)
    sigma = (root - power(state["accumulator"], -learning_rate_power)) / learning_rate
    z = state["linear"] + g + 2 * l2_shrinkage_regularization_strength * p - sigma * p
    clipped = minimum(maximum(z, -l1_regularization_strength), l1_regularization_strength)
    quadratic = (beta + root) / learning_rate + 2 * l2_regularization_strength
    # 0 / 0 is 0.
    p = (clipped - z) / where(quadratic.value == 0, 1.0, quadratic)
    return p, {"accumulator": n, "linear": z}


REFERENCES["Ftrl"] = Reference(
    ftrl,
    slots={"accumulator": None, "linear": None},
    configurations=(
        {},
        {"learning_rate": 0.1, "l1_regularization_strength": 0.5, "beta": 1.0},
        {
            "learning_rate": 0.05,
            "learning_rate_power": -0.7,
            "initial_accumulator_value": 0.5,
            "l2_regularization_strength": 0.1,
            "l2_shrinkage_regularization_strength": 0.01,
        },
    ),
    start={"accumulator": hyperparameter("initial_accumulator_value", 0.1)},
    drift=3.0,
)
