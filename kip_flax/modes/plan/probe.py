"""The time of steps and evaluations, measured on short ones."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import algorithms, data, preprocess
from kip_flax.algorithms.interface import Problem
from kip_flax.data import Dataset, Targets
from kip_flax.kernels import Kernel
from kip_flax.runs import evaluate, setup
from kip_flax.runs.networks import make_network_evaluate
from kip_flax.runtime import multihost
from kip_flax.runtime.waiting import Watch

_SECONDS = 4.0  # Seconds that the second probe, with more targets, should take.
_FEW = 64  # Targets of the first probe.
_STEPS = 10  # Most steps of a probe.
_IMAGES = 2000  # Training images that probes draw from.


@dataclass(frozen=True)
class LinearTime:
    """Seconds as a linear function of the number of targets, or of images of an evaluation.

    Attributes:
        fixed: seconds that do not depend on the number.
        each: seconds for each target or image.
    """

    fixed: float
    each: float

    def at(self, count: float) -> float:
        """Seconds for `count` targets or images."""
        return self.fixed + self.each * count


def fit(seconds: Callable[[int], float], most: int) -> LinearTime:
    """The line through `seconds(count)` at few and at more, at `most` itself if that is quick."""
    few = min(_FEW, most)
    first = seconds(few)
    more = min(most, max(2 * few, int(few * _SECONDS / max(first, 1e-9))))
    if more == few:
        return LinearTime(0.0, first / few)
    second = seconds(more)
    each = max(0.0, second - first) / (more - few)
    return LinearTime(max(0.0, second - each * more), each)


class Probe:
    """Times the steps and evaluations of a run with any number of targets or test images."""

    def __init__(self, config: ConfigDict, dataset: Dataset, kernel: Kernel, mesh: Mesh):
        config = config.copy_and_resolve_references()
        config.support.init = "noise"  # Of some classes there may be too few images here to start.
        self._config, self._kernel, self._mesh = config, kernel, mesh
        # Times do not depend on the pixels: whitening, which is slow to fit, is left out.
        rows = data.evenly(len(dataset.train_labels), _IMAGES)
        images, labels = dataset.train_images[rows], dataset.train_labels[rows]
        self._fitted, self._dataset = preprocess.fit("standard", images), dataset
        pixels = preprocess.apply(self._fitted, images)
        self._targets = Targets(pixels, labels, dataset.num_classes)
        self._key = jax.random.key(config.seed)

    def step(self, count: int) -> float:
        """Seconds of a step with `count` targets."""
        config = self._config.copy_and_resolve_references()
        config.batch_size = count
        least = self._least
        if algorithms.facts(config.algorithm).depends_on_rate:
            least = round(count * len(self._dataset.train_labels) / self._config.batch_size)
        targets = self._batches(count, least)
        support = setup.first_support(config, targets, self._key)
        problem = Problem(config, targets, self._kernel, self._mesh, self._key)
        task = setup.make_distillation(problem, support)
        state = task.start()

        # A run may be shorter than the probe, and its batches may grow.
        algorithm = algorithms.find(config.algorithm)
        first = range(1, min(task.total, _STEPS) + 1)
        numbers = [n for n in first if algorithm.batch_size(config, n) == count]
        numbers = numbers[1:] or numbers  # The first step may be of another kind (`dp_kip`).

        def some(steps: int) -> None:
            """Takes steps as a run does: prepares the next one while one is computed."""
            nonlocal state
            for number in range(steps):
                state, _ = task.step(state, numbers[number % len(numbers)] if numbers else 1)
            jax.block_until_ready(state)

        some(1)  # Compiles.
        once = _median(lambda: some(1))
        steps = max(1, min(_STEPS, int(_SECONDS / 4 / once)))
        return _median(lambda: some(steps)) / steps if steps > 1 else once

    def evaluation(self, count: int) -> float:
        """Seconds of an evaluation on `count` images."""
        targets = self._batches(count, self._least)
        images, labels = setup.first_support(self._config, targets, self._key)
        measure = evaluate.make_evaluate(
            self._kernel,
            targets.images[:count],
            targets.labels[:count],
            reg=self._config.reg,
            batch_size=self._config.eval.batch_size,
            mesh=self._mesh,
        )
        measure(images, labels)  # Compiles.
        return _median(lambda: measure(images, labels))

    def networks(self, watch: Watch) -> tuple[float, float]:
        """Seconds to train the networks of an evaluation before the last step, and after it.

        Zeros if no networks are trained.

        Raises:
            Stopped: a signal asked to stop.
        """
        config = self._config
        found = make_network_evaluate(config, self._dataset, self._fitted, self._mesh)
        if found is None:
            return 0.0, 0.0
        images, labels = setup.first_support(config, self._targets, self._key)
        return found.seconds(np.asarray(images), np.asarray(labels), watch)

    @property
    def _least(self) -> int:
        """As many targets as the probe and the support have."""
        return max(self._config.support.size, len(self._targets.labels))

    def _batches(self, count: int, least: int) -> Targets:
        """Whole batches of `count` targets, at least one and `least` targets in all."""
        targets = self._targets
        rows = np.arange(max(1, -(-least // count)) * count) % len(targets.labels)
        return Targets(targets.images[rows], targets.labels[rows], targets.num_classes)


def _median(call: Callable[[], object]) -> float:
    """Median seconds of three calls, or of fewer if they take long; the first process measures.

    The processes must make the same calls, so they decide by the same times.
    """
    times: list[float] = []
    while len(times) < 3 and sum(times) < _SECONDS:
        begin = time.perf_counter()
        call()
        took = np.array(time.perf_counter() - begin)
        times.append(float(multihost.of_first(took)))
    return statistics.median(times)
