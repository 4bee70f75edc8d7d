"""The privacy budget of a configuration: the noise and the number of steps that it allows."""

from typing import Any

from ml_collections import ConfigDict

from kip_flax.algorithms import _privacy
from kip_flax.runtime.errors import UserError


def total_steps(config: ConfigDict, train_size: int) -> int:
    """`num_steps`, or as many of them as the budget allows if a noise multiplier is given.

    Raises:
        UserError: the budget allows none.
    """
    privacy = config.privacy
    within, beyond = 0, config.num_steps + 1
    if not privacy.noise_multiplier or not config.num_steps:
        return config.num_steps
    while beyond - within > 1:
        middle = (within + beyond) // 2
        spent = _privacy.epsilon(release(config, train_size, middle))
        within, beyond = (middle, beyond) if spent <= privacy.epsilon else (within, middle)
    if not within:
        raise UserError(
            f"privacy.noise_multiplier is {privacy.noise_multiplier}: the first step spends more "
            f"than privacy.epsilon={privacy.epsilon:g}; take more noise, or 0, which finds it."
        )
    return within


def declared(config: ConfigDict, train_size: int, step: int) -> dict[str, Any]:
    """The privacy statement of a set after `step` steps; see `interface.Algorithm`."""
    secret = config.privacy.noise_seed < 0
    return _privacy.statement(release(config, train_size, step), config.privacy.clip, secret)


def release(config: ConfigDict, train_size: int, steps: int) -> _privacy.Release:
    """The first `steps` steps, as they are accounted for."""
    return _privacy.Release(
        rate(config, train_size),
        noise(config, train_size),
        steps,
        config.privacy.delta,
        means_noise(config),
    )


def rate(config: ConfigDict, train_size: int) -> float:
    """The probability with which a step draws each training image."""
    return config.batch_size / train_size


def noise(config: ConfigDict, train_size: int) -> float:
    """The given noise multiplier, or the least one within the budget."""
    privacy = config.privacy
    return privacy.noise_multiplier or _privacy.noise_multiplier(
        rate(config, train_size),
        config.num_steps,
        privacy.epsilon,
        privacy.delta,
        means_noise(config),
    )


def means_noise(config: ConfigDict) -> float:
    """The noise multiplier of the first step, if it releases class means; 0 otherwise."""
    privacy = config.privacy
    if privacy.start != "means":
        return 0.0
    return _privacy.noise_multiplier(1.0, 1, privacy.means_share * privacy.epsilon, privacy.delta)
