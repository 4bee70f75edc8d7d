"""Privacy accounting for clipped sums over drawn targets with Gaussian noise.

A step draws every target with the same probability (Poisson sampling), and adds normal noise of
standard deviation `noise multiplier * clip` to the sum of the clipped gradients. The package
dp-accounting does the accounting, by privacy loss distributions: data sets are neighbours if one
target is added or removed, and all steps are published (Mironov et al., 2019; Doroshenko et al.,
PoPETs 2022).
"""

from __future__ import annotations

import functools
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from kip_flax.runtime.errors import UserError

if TYPE_CHECKING:
    import dp_accounting

_PACKAGE = "dp-accounting"
_MOST_NOISE = 1e4  # The search stops here: nothing is learned with more noise.


class Release(NamedTuple):
    """Steps whose results are published.

    Attributes:
        rate: probability that a step draws a given target.
        noise: noise multiplier, the noise's standard deviation in units of the clip.
        steps: 0 or more.
        delta: of (epsilon, delta)-differential privacy.
        means: noise multiplier of the first step, if it releases means of all training images;
            0: it is like the others.
    """

    rate: float
    noise: float
    steps: int
    delta: float
    means: float = 0.0


@functools.cache
def epsilon(release: Release) -> float:
    """The epsilon that the steps spend."""
    if not release.steps:
        return 0.0
    accountant = _accountant()
    accountant.compose(_event(release))
    return float(accountant.get_epsilon(release.delta))


@functools.cache
def noise_multiplier(
    rate: float, steps: int, budget: float, delta: float, means: float = 0.0
) -> float:
    """The least noise multiplier with which `steps` steps spend at most the epsilon `budget`.

    Args:
        rate, steps, delta, means: as in `Release`.
        budget: an epsilon; more than the first step spends, if it releases means.

    Raises:
        UserError: none below 10,000 does.
    """
    import dp_accounting

    if steps <= (1 if means else 0):
        return 0.0  # No step adds noise to gradients: there are none, or means alone.
    try:
        found = dp_accounting.calibrate_dp_mechanism(
            _accountant,
            lambda noise: _event(Release(rate, noise, steps, delta, means)),
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


def statement(release: Release, clip: float, secret: bool) -> dict[str, Any]:
    """The privacy statement in the file and on the card of a set.

    Args:
        release: the steps that made the set.
        clip: the largest norm of a target's gradient.
        secret: whether the noise came from the operating system. If not, 'epsilon' is None
            (unbounded): whoever knows the seed can remove the noise.
    """
    return {
        "epsilon": epsilon(release) if secret else None,
        "delta": release.delta,
        "steps": release.steps,
        "sampling_rate": release.rate,
        "noise_multiplier": release.noise,
        "clip": clip,
        **({"means_noise_multiplier": release.means} if release.means else {}),
        "neighbours": "one training image added or removed",
        "accountant": f"{_PACKAGE} {metadata.version(_PACKAGE)}, privacy loss distributions",
        "not_covered": [*NOT_COVERED, *([] if secret else [_NO_SECRET])],
    }


NOT_COVERED = (
    "other runs on the same images, whose epsilons add up, and the choice of the settings",
    "the number of training images",
    "the split of data without test images of their own, which one more image changes",
    "the test images and the accuracies on them",
    "what transfer and compare write: their networks are chosen on held-out training images",
    "checkpoints, which hold the random key, and the times of steps",
    "attacks on the finite precision of float32 noise: on its rounding (Mironov, CCS 2012), and on "
    "that none of it lies beyond 5.5 deviations",
    "attacks on JAX's generator, which is not made for cryptography",
)
_NO_SECRET = "anything: privacy.noise_seed names the noise, which can be taken away"


def _accountant() -> dp_accounting.PrivacyAccountant:
    from dp_accounting import pld

    return pld.PLDAccountant()


def _event(release: Release) -> dp_accounting.DpEvent:
    import dp_accounting

    noise = dp_accounting.GaussianDpEvent(release.noise)
    step = dp_accounting.PoissonSampledDpEvent(release.rate, noise)
    if not release.means:
        return dp_accounting.SelfComposedDpEvent(step, release.steps)
    events = [dp_accounting.GaussianDpEvent(release.means)]
    if release.steps > 1:
        events.append(dp_accounting.SelfComposedDpEvent(step, release.steps - 1))
    return dp_accounting.ComposedDpEvent(events)
