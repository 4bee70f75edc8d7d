"""What clipped sums of drawn targets with Gaussian noise tell about a single target.

A step draws every target with the same probability (Poisson sampling), and adds normal noise of
`noise multiplier * clip` to the sum of the clipped gradients. The accounting is that of the package
dp-accounting by privacy loss distributions: data sets are neighbours if one target is added or
removed, and all steps are published (Mironov et al., 2019; Doroshenko et al., PoPETs 2022).
"""

from __future__ import annotations

import functools
from importlib import metadata
from typing import TYPE_CHECKING, Any

from kip_flax.runtime.errors import UserError

if TYPE_CHECKING:
    import dp_accounting

_PACKAGE = "dp-accounting"
_MOST_NOISE = 1e4  # No larger multiplier is looked for: nothing is learned with it.


@functools.cache
def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """What `steps` steps spend.

    Args:
        rate: probability that a step draws a target.
        noise: noise multiplier, the noise's standard deviation in units of the clip.
        steps: 0 or more.
        delta: probability that is left out.
    """
    if not steps:
        return 0.0
    accountant = _accountant()
    accountant.compose(_event(rate, noise, steps))
    return float(accountant.get_epsilon(delta))


@functools.cache
def noise_multiplier(rate: float, steps: int, budget: float, delta: float) -> float:
    """The least noise with which `steps` steps spend no more than the epsilon `budget`.

    Raises:
        UserError: there is none.
    """
    import dp_accounting

    if not steps:
        return 0.0
    try:
        found = dp_accounting.calibrate_dp_mechanism(
            _accountant,
            lambda noise: _event(rate, noise, steps),
            budget,
            delta,
            dp_accounting.LowerEndpointAndGuess(0.0, 1.0),
            tol=1e-4,
        )
    except (ValueError, dp_accounting.mechanism_calibration.NoBracketIntervalFoundError):
        found = _MOST_NOISE
    if not found < _MOST_NOISE:
        raise UserError(
            f"no noise keeps {steps} steps within privacy.epsilon={budget:g}: take a larger "
            f"epsilon, fewer steps or a smaller batch_size."
        )
    return float(found)


def statement(
    rate: float, noise: float, steps: int, delta: float, clip: float, secret: bool
) -> dict[str, Any]:
    """What the file and the card of a set say about it.

    Args:
        rate, noise, steps, delta: as for `epsilon`.
        clip: the largest norm of a target's gradient.
        secret: whether the noise came from the operating system. If it did not, epsilon is
            infinite: whoever knows the seed can take the noise away.
    """
    return {
        "epsilon": epsilon(rate, noise, steps, delta) if secret else None,
        "delta": delta,
        "steps": steps,
        "sampling_rate": rate,
        "noise_multiplier": noise,
        "clip": clip,
        "neighbours": "one training image added or removed",
        "accountant": f"{_PACKAGE} {metadata.version(_PACKAGE)}, privacy loss distributions",
        "not_covered": [*NOT_COVERED, *([] if secret else [_NO_SECRET])],
    }


NOT_COVERED = (
    "other runs on the same images, whose epsilons add up, and the choice of the settings",
    "the number of training images",
    "the test images and the accuracies on them",
    "checkpoints, which hold the random key, and the times of steps",
    "attacks on the rounding of float32 noise (Mironov, CCS 2012), or on JAX's generator, which "
    "is not made for cryptography",
)
_NO_SECRET = "anything: privacy.noise_seed names the noise, which can be taken away"


def _accountant() -> dp_accounting.PrivacyAccountant:
    from dp_accounting import pld

    return pld.PLDAccountant()


def _event(rate: float, noise: float, steps: int) -> dp_accounting.DpEvent:
    import dp_accounting

    step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    return dp_accounting.SelfComposedDpEvent(step, steps)
