"""What the tests know about the optimizer classes: `REFERENCES` maps the name of each to it.

Beside it stand the rules in float64 NumPy, written from their publications. A rule takes a
parameter, its gradient and its state, and returns what both become. It has the name and the
keywords of the kernel function; what works element by element and what needs norms over the array
look the same.
"""

from references import adam, elementwise, gradient_descent, matrices, norms, schedule_free
from references.reference import (
    REFERENCES,
    VECTOR_REFERENCES,
    Configuration,
    Reference,
    assert_rounded,
    slots,
)

__all__ = [
    "REFERENCES",
    "VECTOR_REFERENCES",
    "Configuration",
    "Reference",
    "adam",
    "assert_rounded",
    "elementwise",
    "gradient_descent",
    "matrices",
    "norms",
    "schedule_free",
    "slots",
]
