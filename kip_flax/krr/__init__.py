"""Kernel ridge regression (KRR), and the solvers that learn a support by its error."""

from kip_flax.data.targets import centered_one_hot
from kip_flax.krr.ridge import (
    accuracy,
    add_ridge,
    check_positive_definite,
    inverse_factor,
    loss,
    predict,
    regularised,
    solve,
    solve_dtype,
    solve_positive_definite,
)

__all__ = [
    "accuracy",
    "add_ridge",
    "centered_one_hot",
    "check_positive_definite",
    "inverse_factor",
    "loss",
    "predict",
    "regularised",
    "solve",
    "solve_dtype",
    "solve_positive_definite",
]
