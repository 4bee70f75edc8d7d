"""One row of the transfer table: a network, or kernel ridge regression, on one set.

Networks are trained in parts; after each the state goes to a checkpoint, with what was found so
far. A row that is asked for again goes on from there.
"""

import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kip_flax.data import Targets
from kip_flax.kernels import Kernel
from kip_flax.modes.transfer.session import Session
from kip_flax.modes.transfer.sets import ImageSet, RealImages
from kip_flax.modes.transfer.table import summary
from kip_flax.networks import build, train
from kip_flax.runs import evaluate
from kip_flax.runtime import sharding

Row = dict[str, Any]
Contender = Callable[[ImageSet], Row | None]  # None when told to stop.


class Diverged(Exception):
    """A training diverged with every learning rate; the message names it."""


@dataclass(frozen=True, eq=False)
class Protocol:
    """How the networks of all rows are trained, chosen and counted.

    Attributes:
        recipe: of one training.
        labels: 'soft' or 'hard', see `train.training_labels`.
        lr_factors, l2s: every pair is a candidate. A factor is of the largest learning rate that
            the network's tangent kernel bears.
        seeds: networks of a row.
        key: of their weights and batches.
        ntk_inputs: held-out images that the largest learning rate is computed on.
        eval_batch_size: images that one pass of a network evaluates.
        every_steps: steps between two checkpoints.
    """

    recipe: train.Recipe
    labels: str
    lr_factors: tuple[float, ...]
    l2s: tuple[float, ...]
    seeds: int
    key: jax.Array
    ntk_inputs: int
    eval_batch_size: int
    every_steps: int


def krr_row(test: Targets, kernel: Kernel, *, reg: float, batch_size: int, mesh: Mesh) -> Contender:
    """Kernel ridge regression on a set: its row of the table.

    Args:
        test: images that accuracies are measured on.
        kernel: over the mesh already.
        reg, batch_size, mesh: as in `evaluate.make_evaluate`.
    """
    measure = evaluate.make_evaluate(
        kernel, test.images, test.labels, reg=reg, batch_size=batch_size, mesh=mesh
    )

    def row(image_set: ImageSet) -> Row:
        began = time.perf_counter()
        draws = zip(image_set.images, image_set.labels, strict=True)
        measures = [measure(*sharding.replicate(mesh, draw)) for draw in draws]
        found = summary([m["accuracy"] for m in measures])
        return found | {"seconds": time.perf_counter() - began}

    return row


def network_row(
    name: str,
    make: build.Make,
    protocol: Protocol,
    real: RealImages,
    mesh: Mesh,
    session: Session,
) -> Contender:
    """The network `name` trained on a set: its row of the table, or None when told to stop.

    Of several learning rates and L2 the pair is taken that is best on the held-out images. A row
    raises Diverged if the training diverges with all of them.
    """
    recipe, seeds = protocol.recipe, protocol.seeds
    net = build.functions(make)
    trainer = train.make_trainer(net, recipe, mesh, protocol.eval_batch_size)
    candidates = list(itertools.product(protocol.lr_factors, protocol.l2s))
    # Whole rounds of the devices: what is too much is trained and dropped.
    trained = -(-seeds // mesh.size) * mesh.size
    put = functools.partial(
        jax.device_put, device=NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    )
    # A seed's keys depend on its number alone, not on how many there are.
    init_keys, step_keys = (put(_keys(protocol.key, i, trained)) for i in range(2))

    def row(image_set: ImageSet) -> Row | None:
        began = time.perf_counter()
        job = f"{name} on {image_set.size} {image_set.name}"
        images, labels = put(_training_set(image_set, protocol, trained))
        start, largest = trainer.start(init_keys, real.held_out.images[: protocol.ntk_inputs])
        saved, results = session.restore(job, start)
        for factor, l2 in candidates[len(results) :]:
            states, step = (start, 0) if saved is None else (put(saved[0]), saved[1])
            saved = None
            trainings = train.Trainings(step_keys, images, labels, factor * largest)
            for first, last in _parts(step, recipe.num_steps, protocol.every_steps):
                since = time.perf_counter()
                states = trainer.advance(states, trainings, l2, first, last)
                jax.block_until_ready(states)
                session.save(job, last, states, results)
                pace = (time.perf_counter() - since) / (last - first)
                told = f"{job}, factor {factor:g}, L2 {l2:g}"
                session.progress(told, last, recipe.num_steps, pace)
                if session.stopping():
                    return None
            rates = (factor * np.asarray(largest)[:seeds]).tolist()
            found = {"lr_factor": factor, "l2": l2, "learning_rates": rates}
            accuracy = functools.partial(_accuracies, trainer, states, seeds)
            results.append(found | _measure(accuracy, real, results))
        return _best(job, results) | {"seconds": time.perf_counter() - began}

    return row


def _keys(key: jax.Array, part: int, count: int) -> jax.Array:
    key = jax.random.fold_in(key, part)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(count))


def _training_set(
    image_set: ImageSet, protocol: Protocol, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels for `count` networks; draws begin again where there are too few."""
    draws = np.arange(count) % len(image_set.images)
    labels = [
        train.training_labels(y, protocol.recipe.loss, protocol.labels) for y in image_set.labels
    ]
    return image_set.images[draws], np.stack(labels)[draws]


def _parts(first: int, last: int, size: int) -> list[tuple[int, int]]:
    return [(step, min(step + size, last)) for step in range(first, last, size)]


def _accuracies(trainer: train.Trainer, states: Any, seeds: int, part: Targets) -> np.ndarray:
    return np.asarray(trainer.accuracy(states, part.images, part.labels))[:seeds]


def _measure(
    accuracies: Callable[[Targets], np.ndarray], real: RealImages, before: list[Row]
) -> Row:
    """Accuracies; on the test images only if no candidate before was as good on the held-out."""
    held_out = float(np.mean(accuracies(real.held_out)))
    if np.isfinite(held_out) and not any(held_out <= row["held_out"] for row in before):
        return {"held_out": held_out, "accuracies": accuracies(real.test).tolist()}
    return {"held_out": held_out}


def _best(job: str, results: list[Row]) -> Row:
    """The candidate that is best on the held-out images, the first of several.

    A candidate of which one seed diverged has the held-out accuracy NaN and is never the best.
    """
    fine = [result for result in results if np.isfinite(result["held_out"])]
    if not fine:
        raise Diverged(job)
    best = max(fine, key=lambda result: result["held_out"])
    told = {key: value for key, value in best.items() if key != "accuracies"}
    tried = [[r["lr_factor"], r["l2"], r["held_out"] if r in fine else None] for r in results]
    return summary(best["accuracies"]) | told | {"tried": tried}
