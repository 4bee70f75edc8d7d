"""One row of the transfer table: a network, or kernel ridge regression, on one set."""

import functools
import time
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from kip_flax.data import Targets
from kip_flax.kernels import Kernel
from kip_flax.modes.transfer.session import Session
from kip_flax.modes.transfer.sets import DISTILLED, ImageSet
from kip_flax.networks.figures import summary
from kip_flax.networks.progress import Hooks, Outcome
from kip_flax.networks.trial import Trial
from kip_flax.runs import evaluate
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

Row = dict[str, Any]
Contender = Callable[[ImageSet], Row]


def krr_row(
    test: Targets,
    kernel: Kernel,
    *,
    reg: float,
    batch_size: int,
    mesh: Mesh,
    session: Session,
) -> Contender:
    """A function from a set to its row of the table, by kernel ridge regression.

    Args:
        test: images that accuracies are measured on.
        kernel: spread over the mesh already.
        reg, batch_size, mesh: as in `evaluate.make_evaluate`.
        session: reports progress and stops the work.
    """
    measure = evaluate.make_evaluate(
        kernel, test.images, test.labels, reg=reg, batch_size=batch_size, mesh=mesh
    )

    def row(image_set: ImageSet) -> Row:
        began = time.perf_counter()
        what = f"kernel ridge regression on {image_set.size} {image_set.name}"
        accuracies = []
        for draw in zip(image_set.images, image_set.labels, strict=True):
            compute = functools.partial(measure, *sharding.replicate(mesh, draw))
            try:
                accuracies.append(session.watch.wait(what, compute)["accuracy"])
            except UserError as error:
                raise UserError(f"{what}: {error}") from None
        return summary(accuracies) | {"seconds": time.perf_counter() - began}

    return row


def network_row(name: str, trial_of: Callable[[int], Trial], session: Session) -> Contender:
    """A function from a set to its row of the table, by the network `name` trained on it.

    Args:
        name: name of the network.
        trial_of: number of images -> the trial for sets of that size.
        session: keeps unfinished work, reports progress and stops it.
    """

    def row(image_set: ImageSet) -> Row:
        began = time.perf_counter()
        trial = trial_of(image_set.size)
        job = f"{name} on {image_set.size} {image_set.name}"
        best, trained = session.best, None
        if best is not None and image_set.name == DISTILLED:
            trained = functools.partial(best.offer, name, trial)
        save = functools.partial(session.save, job)
        hooks = Hooks(session.restore(job, trial.template), save, trained)
        outcome = trial.run(image_set.images, image_set.labels, session.watch, job, hooks)
        return row_of(trial, outcome) | {"seconds": time.perf_counter() - began}

    return row


def row_of(trial: Trial, outcome: Outcome) -> Row:
    """The columns of a row that come from a trial."""
    row = summary(outcome.accuracies)
    row["lr_factor" if trial.recipe.relative else "learning_rate"] = outcome.rate
    row |= {"l2": outcome.l2, "num_steps": trial.recipe.num_steps}
    row["learning_rates"] = [one.learning_rate for one in outcome.trained]
    for one in outcome.tried:
        if (one.rate, one.l2) == (outcome.rate, outcome.l2):
            row["held_out"] = one.accuracy
    row["tried"] = [[one.rate, one.l2, one.accuracy] for one in outcome.tried]
    return row
