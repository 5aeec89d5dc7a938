"""Every function of `instep.kernels`; written by tools/regenerate.py."""

from numpy.typing import ArrayLike

from instep.typing import Array, Convention

def adabelief(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-08,
    epsilon_root: float = 1e-08,
    nesterov: bool = False,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.AdaBelief`."""

def adadelta(
    param: Array,
    grad: Array,
    mean_square: Array,
    mean_square_update: Array,
    *,
    step: int | None = None,
    learning_rate: float = 1.0,
    rho: float = 0.95,
    epsilon: float = 1e-06,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Adadelta`."""

def adafactor(
    param: Array,
    grad: Array,
    *state: Array | None,
    step: int | None = None,
    learning_rate: float = 0.01,
    beta_2_decay: float = -0.8,
    epsilon_1: float | None = 1e-30,
    epsilon_2: float = 0.001,
    clip_threshold: float = 1.0,
    relative_step: bool = True,
    min_dim_size_to_factor: int = 0,
    momentum: float = 0.0,
    decay_rate: float | None = None,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    weight_decay_rate: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Adafactor`."""

def adagrad(
    param: Array,
    grad: Array,
    accumulator: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.01,
    learning_rate_decay: float = 0.0,
    epsilon: float = 1e-10,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Adagrad`."""

def adam(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    v_max: Array | None = None,
    *,
    step: int | None = None,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-08,
    epsilon_root: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Adam`."""

def adamax(
    param: Array,
    grad: Array,
    m: Array,
    u: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.002,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-08,
    learning_rate_decay: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Adamax`."""

def adamw(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    v_max: Array | None = None,
    *,
    step: int | None = None,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-08,
    epsilon_root: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.01,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.AdamW`."""

def adan(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    n: Array,
    previous_gradient: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.001,
    beta_1: float = 0.98,
    beta_2: float = 0.92,
    beta_3: float = 0.99,
    epsilon: float = 1e-08,
    epsilon_root: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Adan`."""

def ademamix(
    param: Array,
    grad: Array,
    m_1: Array,
    m_2: Array,
    v: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    beta_3: float = 0.9999,
    alpha: float = 5.0,
    epsilon: float = 1e-08,
    epsilon_root: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.AdEMAMix`."""

def asgd(
    param: Array,
    grad: Array,
    ax: Array,
    eta: Array,
    mu: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.01,
    lambd: float = 0.0001,
    alpha: float = 0.75,
    t0: float = 1000000.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.ASGD`."""

def clipup(
    param: Array,
    grad: Array,
    velocity: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.075,
    momentum: float = 0.9,
    max_speed: float | None = None,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.ClipUp`."""

def fromage(
    param: Array,
    grad: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.01,
    min_norm: float = 1e-06,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Fromage`."""

def ftrl(
    param: Array,
    grad: Array,
    accumulator: Array,
    linear: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.001,
    learning_rate_power: float = -0.5,
    l1_regularization_strength: float = 0.0,
    l2_regularization_strength: float = 0.0,
    l2_shrinkage_regularization_strength: float = 0.0,
    beta: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Ftrl`."""

def lamb(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-06,
    epsilon_root: float = 0.0,
    trust_ratio: bool = True,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Lamb`."""

def lars(
    param: Array,
    grad: Array,
    momentum_state: Array | None = None,
    *,
    step: int | None = None,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    trust_ratio: bool = True,
    trust_coefficient: float = 0.001,
    epsilon: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Lars`."""

def lion(
    param: Array,
    grad: Array,
    m: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.0001,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Lion`."""

def muon(
    param: Array,
    grad: Array,
    *state: Array | None,
    step: int | None = None,
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    ns_coefficients: tuple[float, ...] = (3.4445, -4.775, 2.0315),
    adjust_lr_fn: str | None = None,
    rms_rate: float | None = 0.2,
    consistent_rms: float | None = None,
    epsilon: float = 1e-07,
    adam_lr_ratio: float = 1.0,
    adam_weight_decay: float = 0.0,
    adam_beta_1: float = 0.9,
    adam_beta_2: float = 0.999,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Muon`."""

def nadam(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    u_product: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.002,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-08,
    epsilon_root: float = 0.0,
    momentum_decay: float = 0.004,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Nadam`."""

def novograd(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.01,
    beta_1: float = 0.95,
    beta_2: float = 0.98,
    epsilon: float = 1e-08,
    epsilon_root: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.NovoGrad`."""

def prodigy(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    s: Array,
    p_0: Array,
    d: Array,
    r: Array,
    *,
    step: int | None = None,
    learning_rate: float = 1.0,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    beta_3: float | None = None,
    epsilon: float = 1e-08,
    estim_lr0: float = 1e-06,
    estim_lr_coef: float = 1.0,
    safeguard_warmup: bool = False,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Prodigy`."""

def radam(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-08,
    epsilon_root: float = 0.0,
    threshold: float = 4.0,
    nesterov: bool = False,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.RAdam`."""

def rmsprop(
    param: Array,
    grad: Array,
    mean_square: Array,
    mean_gradient: Array | None = None,
    momentum_state: Array | None = None,
    *,
    step: int | None = None,
    learning_rate: float = 0.001,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-07,
    nesterov: bool = False,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.RMSprop`."""

def rowwise_adagrad(
    param: Array,
    grad: Array,
    *state: Array | None,
    step: int | None = None,
    learning_rate: float = 0.01,
    epsilon: float = 1e-08,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.RowwiseAdagrad`."""

def rprop(
    param: Array,
    grad: Array,
    previous_gradient: Array,
    step_size: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.01,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-06,
    max_step_size: float = 50.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Rprop`."""

def schedule_free_adamw(
    param: Array,
    grad: Array,
    z: Array,
    v: Array,
    learning_rate_max: Array,
    weight_sum: Array,
    last_beta_1: Array | None = None,
    *,
    step: int | None = None,
    learning_rate: float = 0.0025,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-08,
    warmup_steps: int = 0,
    weight_lr_power: float = 2.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.ScheduleFreeAdamW`."""

def schedule_free_sgd(
    param: Array,
    grad: Array,
    z: Array,
    learning_rate_max: Array,
    weight_sum: Array,
    last_beta_1: Array | None = None,
    *,
    step: int | None = None,
    learning_rate: float = 1.0,
    beta_1: float = 0.9,
    warmup_steps: int = 0,
    weight_lr_power: float = 2.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.ScheduleFreeSGD`."""

def sgd(
    param: Array,
    grad: Array,
    momentum_state: Array | None = None,
    *,
    step: int | None = None,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.SGD`."""

def sign_sgd(
    param: Array,
    grad: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.0001,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.SignSGD`."""

def signum(
    param: Array,
    grad: Array,
    momentum_state: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.0001,
    momentum: float = 0.9,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Signum`."""

def sm3(
    param: Array,
    grad: Array,
    *state: Array | None,
    step: int | None = None,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    epsilon: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.SM3`."""

def yogi(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    *,
    step: int | None = None,
    learning_rate: float = 0.01,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 0.001,
    epsilon_root: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    convention: Convention = "paper",
    out: Array | None = None,
    rows: ArrayLike | None = None,
) -> None:
    """Update a parameter and its state by the rule of `instep.Yogi`."""
