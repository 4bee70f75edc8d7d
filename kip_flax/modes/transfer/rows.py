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
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from kip_flax.data import Targets, augment
from kip_flax.modes.transfer import table as transfer_table
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.networks import build as networks
from kip_flax.networks import fields as transfer_fields
from kip_flax.networks import train as finite
from kip_flax.networks import zoo
from kip_flax.runs import checkpoint, evaluate
from kip_flax.runs.evaluate import Kernel
from kip_flax.runtime import console, sharding
from kip_flax.runtime.console import Console

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Problem:
    """All that a row is computed from, besides its network and its set.

    Attributes:
        config: a valid configuration.
        held_out, test: images that choices are made on, and that accuracies are measured on.
        mesh: the devices.
        key: of the networks' weights and batches.
    """

    config: ConfigDict
    held_out: Targets
    test: Targets
    mesh: Mesh
    key: jax.Array


class Diverged(Exception):
    """A training diverged with every learning rate; the message names it."""


@dataclass(frozen=True, eq=False)
class Session:
    """Where unfinished rows are kept, whether to stop, and whom to tell."""

    manager: ocp.CheckpointManager
    stopping: Callable[[], bool]
    console: Console


def krr_row(problem: Problem, kernel: Kernel) -> Callable[[ImageSet], Row]:
    """Kernel ridge regression on a set: its row of the table."""
    measure = evaluate.make_evaluate(
        kernel,
        problem.test.images,
        problem.test.labels,
        reg=problem.config.reg,
        batch_size=problem.config.eval.batch_size,
        mesh=problem.mesh,
    )

    def row(image_set: ImageSet) -> Row:
        began = time.perf_counter()
        draws = zip(image_set.images, image_set.labels, strict=True)
        measures = [measure(*sharding.replicate(problem.mesh, draw)) for draw in draws]
        found = transfer_table.summary([m["accuracy"] for m in measures])
        return found | {"seconds": time.perf_counter() - began}

    return row


def network_row(
    problem: Problem, name: str, make: networks.Make, session: Session
) -> Callable[[ImageSet], Row | None]:
    """The network `name` trained on a set: its row of the table, or None when told to stop.

    Of several learning rates and L2 the pair is taken that is best on the held-out images. A row
    raises Diverged if the training diverges with all of them.
    """
    options, mesh = problem.config.transfer, problem.mesh
    recipe = finite.Recipe(
        loss=options.loss,
        num_steps=options.num_steps,
        batch_size=options.batch_size,
        momentum=options.momentum,
        augments=augment.parse(options.augment),
        augment_draw=options.augment_draw,
    )
    net = networks.functions(make)
    trainer = finite.make_trainer(net, recipe, mesh, options.eval_batch_size)
    candidates = list(itertools.product(options.lr_factor, options.l2))
    # Whole rounds of the devices: what is too much is trained and dropped.
    seeds = -(-options.seeds // mesh.size) * mesh.size
    put = functools.partial(
        jax.device_put, device=NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    )
    # A seed's keys depend on its number alone, not on how many there are.
    init_keys, step_keys = (put(_keys(problem.key, i, seeds)) for i in range(2))

    def row(image_set: ImageSet) -> Row | None:
        began = time.perf_counter()
        job = f"{name} on {image_set.size} {image_set.name}"
        draws = np.arange(seeds) % len(image_set.images)
        labels = [finite.training_labels(y, options.loss, options.labels) for y in image_set.labels]
        data = put((step_keys, image_set.images[draws], np.stack(labels)[draws]))
        start, largest = trainer.start(init_keys, problem.held_out.images[: options.ntk_inputs])
        saved, results = _saved(session.manager, job, start)
        for factor, l2 in candidates[len(results) :]:
            states, step = (start, 0) if saved is None else (put(saved[0]), saved[1])
            saved = None
            for first, last in _parts(step, recipe.num_steps, options.every_steps):
                since = time.perf_counter()
                states = trainer.advance(states, *data, factor * largest, l2, first, last)
                jax.block_until_ready(states)
                _save(session.manager, states, {"job": job, "at": last, "results": results})
                told = f"{job}, factor {factor:g}, L2 {l2:g}"
                pace = (time.perf_counter() - since) / (last - first)
                session.console.progress(*_progress(told, last, recipe.num_steps, pace))
                if session.stopping():
                    return None
            rates = (factor * np.asarray(largest)[: options.seeds]).tolist()
            found = {"lr_factor": factor, "l2": l2, "learning_rates": rates}
            results.append(found | _measure(problem, trainer, states, results))
        return _best(job, results) | {"seconds": time.perf_counter() - began}

    return row


def maker(
    config: ConfigDict, name: str, image_shape: tuple[int, int, int], num_classes: int
) -> networks.Make:
    """What makes the network `name` of `transfer.networks`.

    Raises:
        UserError: the images are too small for it.
    """
    kernel, options = config.kernel, config.transfer
    spec = transfer_fields.described(name, kernel.architecture, kernel.depth)
    if spec is None:
        make: networks.Make = functools.partial(zoo.make_network, name, image_shape, num_classes)
    else:
        make = functools.partial(
            networks.make_network,
            spec,
            image_shape,
            num_classes,
            width=options.width,
            w_std=kernel.w_std,
            b_std=kernel.b_std,
            parameterization=options.parameterization,
        )
    networks.num_parameters(make)  # Refuses what does not fit.
    return make


def _keys(key: jax.Array, part: int, count: int) -> jax.Array:
    key = jax.random.fold_in(key, part)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(count))


def _parts(first: int, last: int, size: int) -> list[tuple[int, int]]:
    return [(step, min(step + size, last)) for step in range(first, last, size)]


def _save(manager: ocp.CheckpointManager, states: Any, meta: dict[str, Any]) -> None:
    number = (manager.latest_step() or 0) + 1  # Over all rows; the newest is kept.
    checkpoint.save(manager, number, jax.tree.leaves(states), meta)


def _saved(
    manager: ocp.CheckpointManager, job: str, like: Any
) -> tuple[tuple[Any, int] | None, list[Row]]:
    """State and step of the candidate that was stopped in `job`, and the results before it."""
    meta = checkpoint.restore_meta(manager)
    if meta is None or meta["job"] != job:
        return None, []
    restored = checkpoint.restore(manager, jax.tree.leaves(like))
    if restored is None or restored.meta["job"] != job:
        return None, []
    states = jax.tree.unflatten(jax.tree.structure(like), restored.state)
    return (states, restored.meta["at"]), restored.meta["results"]


def _measure(problem: Problem, trainer: finite.Trainer, states: Any, before: list[Row]) -> Row:
    """Accuracies; on the test images only if no candidate before was as good on the held-out."""

    def accuracies(part: Targets) -> np.ndarray:
        shares = trainer.accuracy(states, part.images, part.labels)
        return np.asarray(shares)[: problem.config.transfer.seeds]

    held_out = float(np.mean(accuracies(problem.held_out)))
    if np.isfinite(held_out) and not any(held_out <= row["held_out"] for row in before):
        return {"held_out": held_out, "accuracies": accuracies(problem.test).tolist()}
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
    return transfer_table.summary(best["accuracies"]) | told | {"tried": tried}


def _progress(told: str, step: int, total: int, pace: float) -> tuple[str, str, str]:
    left = console.duration(pace * (total - step))
    return f"{told}: step {step}/{total}", f"{1e3 * pace:.1f} ms/step", f"ETA {left}"
