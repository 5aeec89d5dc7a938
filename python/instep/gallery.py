"""Rules from papers as formulas: to use, to read, to begin one's own from.

Each is a class like the built-in ones, ``instep.gallery.QHAdam(params, learning_rate=0.001)``, made
by `instep.rule`; docs/formulas.md says what may stand in a formula. Where no source is named for a
detail, it is the authors' code. `weight_decay` is decoupled in all of them.
"""

from instep._formulas.definition import rule

CautiousAdamW = rule(
    "CautiousAdamW",
    state="m v",
    formula="""
        m = beta_1*m + (1 - beta_1)*g
        v = beta_2*v + (1 - beta_2)*g**2
        agrees = m*g > 0
        agrees = agrees / max(mean(agrees), 1e-3)
        p -= lr/(1 - beta_1**step) * agrees*m / (sqrt(v/(1 - beta_2**step)) + epsilon)
    """,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
    learning_rate=0.001,
    weight_decay=0.01,
    doc="""AdamW that leaves out elements whose update the gradient speaks against.

    K. Liang, L. Chen, B. Liu and Q. Liu, "Cautious optimizers: improving training with one line of
    code", 2024, algorithm 2.""",
)

ADOPT = rule(
    "ADOPT",
    state="m v",
    formula="""
        bound = (step - 1)**clip_exponent
        u = max(min(g / max(sqrt(v), epsilon), bound), -bound)
        m = beta_1*m + (1 - beta_1)*u
        p -= lr*m
        v = where(step == 1, g**2, beta_2*v + (1 - beta_2)*g**2)
    """,
    beta_1=0.9,
    beta_2=0.9999,
    epsilon=1e-6,
    clip_exponent=0.25,
    learning_rate=0.001,
    doc="""Adam that scales a gradient by those before it, and converges with any beta_2.

    S. Taniguchi et al., "ADOPT: modified Adam can converge with any beta_2 with the optimal rate",
    NeurIPS 2024, algorithm 2, clipped. The first update only sets v.""",
)

LaProp = rule(
    "LaProp",
    state="m v",
    formula="""
        v = beta_2*v + (1 - beta_2)*g**2
        m = beta_1*m + (1 - beta_1)*g / (sqrt(v/(1 - beta_2**step)) + epsilon)
        p -= lr*m / (1 - beta_1**step)
    """,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-15,
    learning_rate=4e-4,
    doc="""Momentum of gradients that were scaled before.

    L. Ziyin, Z. Wang and M. Ueda, "LaProp: separating momentum and adaptivity in Adam", 2020,
    algorithm 1.""",
)

MADGRAD = rule(
    "MADGRAD",
    state={"s": 0.0, "v": 0.0, "x_0": "p"},
    formula="""
        share = (lr + epsilon)*sqrt(step)
        v += share*g**2
        s += share*g
        z = x_0 - s / (v**(1/3) + epsilon)
        p = momentum*p + (1 - momentum)*z
    """,
    momentum=0.9,
    epsilon=1e-6,
    learning_rate=0.01,
    doc="""Dual averaging with cube roots and momentum.

    A. Defazio and S. Jelassi, "Adaptivity without compromise: a momentumized, adaptive, dual
    averaged gradient method for stochastic optimization", 2021, algorithm 1.""",
)

AdamP = rule(
    "AdamP",
    state="m v",
    formula="""
        m = beta_1*m + (1 - beta_1)*g
        v = beta_2*v + (1 - beta_2)*g**2
        u = m / (sqrt(v/(1 - beta_2**step)) + epsilon)
        length = norm(p)
        cosine = abs(sum(g*p)) / max(norm(g)*length, epsilon)
        is_scale_free = cosine < delta/sqrt(sum(1))
        radial = where(is_scale_free, sum(p*u) / (length + epsilon)**2, 0)
        p -= lr/(1 - beta_1**step) * (u - radial*p)
    """,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
    delta=0.1,
    learning_rate=0.001,
    doc="""Adam whose updates don't make weights longer that a normalization follows.

    B. Heo et al., "AdamP: slowing down the slowdown for momentum optimizers on scale-invariant
    weights", ICLR 2021, algorithm 2, by layer; the authors' code leaves vectors alone.""",
)

Grams = rule(
    "Grams",
    state="m v",
    formula="""
        m = beta_1*m + (1 - beta_1)*g
        v = beta_2*v + (1 - beta_2)*g**2
        p -= lr/(1 - beta_1**step) * abs(m)*sign(g) / (sqrt(v/(1 - beta_2**step)) + epsilon)
    """,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-6,
    learning_rate=0.001,
    doc="""Adam's lengths in the directions of the gradient.

    Y. Cao, X. Li and Z. Song, "Grams: gradient descent with adaptive momentum scaling", 2024.""",
)

MARS = rule(
    "MARS",
    state="m v before",
    formula="""
        c = where(step == 1, g, g + gamma*beta_1/(1 - beta_1)*(g - before))
        c = c / max(norm(c), 1)
        m = beta_1*m + (1 - beta_1)*c
        v = beta_2*v + (1 - beta_2)*c**2
        before = g
        p -= lr/(1 - beta_1**step) * m / (sqrt(v/(1 - beta_2**step)) + epsilon)
    """,
    beta_1=0.9,
    beta_2=0.99,
    gamma=0.025,
    epsilon=1e-8,
    learning_rate=0.003,
    doc="""AdamW on gradients that the ones before correct.

    H. Yuan et al., "MARS: unleashing the power of variance reduction for training large models",
    2024, algorithm 2 (MARS-AdamW, approximate).""",
)

Sophia = rule(
    "Sophia",
    state="m h",
    formula="""
        m = beta_1*m + (1 - beta_1)*g
        h = beta_2*h + (1 - beta_2)*g**2
        p -= lr*max(min(m / max(rho*h, epsilon), 1), -1)
    """,
    beta_1=0.965,
    beta_2=0.99,
    rho=0.04,
    epsilon=1e-15,
    learning_rate=1e-4,
    doc="""Momentum over curvature, clipped; the squared gradient stands for the curvature.

    H. Liu et al., "Sophia: a scalable stochastic second-order optimizer for language model
    pre-training", ICLR 2024, algorithm 3, with the squared gradient of the batch in the place of
    the Hessian's diagonal.""",
)

ClipUp = rule(
    "ClipUp",
    state="b",
    formula="""
        length = norm(g, all)
        scale = where(length > 0, lr/length, 0)
        speed = sqrt(max(momentum**2*sum(b*b, all) + 2*momentum*scale*sum(b*g, all)
                         + (scale*length)**2, 0))
        b = (momentum*b + scale*g) * where(speed > max_speed, max_speed/speed, 1)
        p -= b
    """,
    momentum=0.9,
    max_speed=(0.3, 0, 1e30),
    learning_rate=0.15,
    doc="""Momentum of gradients of length 1, with a speed limit.

    N. Toklu, P. Liskowski and R. Srivastava, "ClipUp: a simple and powerful optimizer for
    distribution-based policy evolution", PPSN 2020, algorithm 1. `instep.ClipUp` is this, too.""",
)

QHAdam = rule(
    "QHAdam",
    state="m v",
    formula="""
        m = beta_1*m + (1 - beta_1)*g
        v = beta_2*v + (1 - beta_2)*g**2
        above = (1 - nu_1)*g + nu_1*m/(1 - beta_1**step)
        p -= lr*above / (sqrt((1 - nu_2)*g**2 + nu_2*v/(1 - beta_2**step)) + epsilon)
    """,
    beta_1=0.995,
    beta_2=0.999,
    nu_1=(0.7, 0, 1),
    nu_2=(1.0, 0, 1),
    epsilon=1e-8,
    learning_rate=0.001,
    doc="""Adam whose averages are mixed with the gradient of the moment.

    J. Ma and D. Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019,
    algorithm 4.""",
)

__all__ = [name for name, each in list(globals().items()) if isinstance(each, type)]
