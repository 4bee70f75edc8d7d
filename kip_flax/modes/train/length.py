"""The number of steps of a run whose schedule is laid out for a time limit.

It is found once, when the run begins; then it stands in the run's checkpoints.
"""

from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import config as config_lib
from kip_flax.data import Dataset
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.plan.mode import forecast
from kip_flax.runs import setup
from kip_flax.runtime import multihost
from kip_flax.runtime.console import Console, duration
from kip_flax.runtime.errors import UserError

ASKED = "asked_steps"  # In a checkpoint: `num_steps` as it was given, before a time limit.


def with_kept_length(config: ConfigDict, saved: dict[str, Any], workdir: str) -> ConfigDict:
    """`config` with the number of steps that `with_length_that_fits` gave the run when it began.

    Raises:
        UserError: the run began with another time limit or number of steps, which its schedule was
            made for.
    """
    asked, kept = saved.get(ASKED), saved["config"]
    earlier = kept.get("time_limit", 0.0)
    if not config_lib.length_decides(config) or not (earlier or config.time_limit):
        return config
    if earlier != config.time_limit:
        raise UserError(
            f"the schedule of {workdir} was laid out for time_limit={earlier:g} and it is now "
            f"{config.time_limit:g}: take another --workdir, or {earlier:g} to go on."
        )
    if asked is not None and config.num_steps not in (asked, kept["num_steps"]):
        raise UserError(
            f"{workdir} began with num_steps={asked} and a schedule for its time_limit; num_steps "
            f"is now {config.num_steps}: take another --workdir, or {asked} to go on."
        )
    return _with_steps(config, kept["num_steps"])


def with_length_that_fits(
    config: ConfigDict, dataset: Dataset, mesh: Mesh, console: Console
) -> ConfigDict:
    """`config` with as many steps as fit the time limit, at most `num_steps`.

    A schedule has to know its last step in advance, so a probe measures the time of a step.
    """
    console.say("measuring a step, to lay the schedule out for time_limit")
    kernel = shard_kernel(setup.make_kernel(config, console), mesh)
    found = forecast(config, dataset, kernel, mesh, console)
    steps = int(multihost.of_first(np.array(found.steps_in_time(config))))
    expected = duration(found.of_steps(max(1, steps), config).seconds)
    if found.steps and not steps:
        raise UserError(
            f"time_limit={config.time_limit:g} (hours) leaves no time for a step: nine tenths of "
            f"it are planned for, and one step with its evaluations takes {expected}. Give more."
        )
    console.say(f"{steps} steps are expected to take {expected}")
    return _with_steps(config, steps)


def _with_steps(config: ConfigDict, steps: int) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.num_steps = steps
    return config
