"""The options of a kernel: its network, parameterisation and implementation."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from kip_flax import architectures as arch
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

Kernel = Callable[[jax.Array, jax.Array], jax.Array]

IMPLEMENTATIONS = ("auto", "cpu", "xla", "neural_tangents")
GETS = ("ntk", "nngp")
PARAMETERIZATIONS = ("ntk", "standard")

_PACKAGES = {"cpu": "numba", "neural_tangents": "neural_tangents"}  # Needed by an implementation.


def _check(fields: Mapping[str, Any]) -> None:
    arch.build(fields["kernel.architecture"], fields["kernel.depth"])


SECTION = Section(
    {
        "kernel.architecture": str,
        "kernel.depth": int,
        "kernel.parameterization": str,
        "kernel.width": int,
        "kernel.w_std": float,
        "kernel.b_std": float,
        "kernel.kind": str,
        "kernel.mirrored": bool,
        "kernel.implementation": str,
    },
    choices={
        "kernel.parameterization": PARAMETERIZATIONS,
        "kernel.kind": GETS,
        "kernel.implementation": IMPLEMENTATIONS,
    },
    minima={"kernel.width": 1, "kernel.b_std": 0},
    above_zero=("kernel.w_std",),
    check=_check,
)


@dataclass(frozen=True)
class KernelOptions:
    """Everything that the kernel of an infinitely wide network depends on.

    Attributes:
        spec: description of the network, from `architectures`.
        w_std, b_std: standard deviations of weights (times sqrt(fan-in)) and biases.
        parameterization: 'ntk', or 'standard', where the tangent kernel grows with `width`
            (Sohl-Dickstein et al. 2020, arXiv 2001.07301).
        width: channels of the hidden layers; used by 'standard' only.
        get: 'ntk' (tangent kernel: a trained network) or 'nngp' (covariance at initialisation).
        mirrored: the kernel of networks whose output is the mean over an image and its mirror image
            (left to right). It is the mean of K(x1, x2) and K(x1, mirrored x2), and so that of KRR
            on a support doubled by mirror images with the same labels (see `kernels.mirrored`).
        implementation: one of `IMPLEMENTATIONS`.

    Raises:
        UserError: an unknown name, or a standard deviation or a width out of range.
    """

    spec: arch.Spec
    w_std: float = 2**0.5
    b_std: float = 0.1
    parameterization: str = "ntk"
    width: int = 1024
    get: str = "ntk"
    mirrored: bool = False
    implementation: str = "auto"

    def __post_init__(self) -> None:
        _check_choice("get", self.get, GETS)
        _check_choice("parameterization", self.parameterization, PARAMETERIZATIONS)
        if not (self.w_std > 0 and self.b_std >= 0 and self.width >= 1):  # Nor NaN.
            raise UserError(
                f"w_std={self.w_std}, b_std={self.b_std}, width={self.width}: w_std must be "
                "positive, b_std at least 0, width at least 1."
            )
        _check_choice("implementation", self.implementation, IMPLEMENTATIONS)

    @property
    def on_pixels(self) -> bool:
        """Whether pairs of pixels are computed: the network does not begin with Flatten."""
        return not (self.spec and isinstance(self.spec[0], arch.Flatten))


def resolve(implementation: str) -> str:
    """The implementation to use; for 'auto', the fastest that can run.

    That is 'cpu' where JAX computes on CPUs and numba is installed, and 'xla' everywhere else.

    Raises:
        UserError: an unknown name, or an implementation whose package is not installed.
    """
    _check_choice("implementation", implementation, IMPLEMENTATIONS)
    if implementation == "auto":
        return "cpu" if jax.default_backend() == "cpu" and _installed("cpu") else "xla"
    if not _installed(implementation):
        raise UserError(
            f"kernel.implementation={implementation!r} needs the package "
            f"{_PACKAGES[implementation]}, which is not installed: install requirements.txt, or "
            "take 'auto'."
        )
    return implementation


def _installed(implementation: str) -> bool:
    package = _PACKAGES.get(implementation)
    return package is None or importlib.util.find_spec(package) is not None


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"unknown {name} {value!r}: it is one of {', '.join(allowed)}.")
