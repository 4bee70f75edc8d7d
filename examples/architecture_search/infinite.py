"""Infinitely wide networks, regressed on each set: their accuracies and costs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from examples.architecture_search.clock import core_seconds
from examples.architecture_search.images import WHOLE, Images, some
from examples.architecture_search.kept import Row
from examples.architecture_search.space import Infinite, Search
from kip_flax import kernels, krr
from kip_flax.data import Targets
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.runs.evaluate import make_measure
from kip_flax.runtime import sharding
from kip_flax.runtime.batching import pad_rows

_REG = 1e-6  # Relative, as in `krr.solve`.
_PER_PASS = 500  # Test images per pass.


class Reached(NamedTuple):
    """Accuracy (0 to 1), half the mean squared error, and the core seconds of measuring them."""

    accuracy: float
    error: float
    seconds: float


class Kernels:
    """Kernel ridge regression on sets; arguments as in `finite.Networks`."""

    def __init__(self, proxies: Mapping[str, ImageSet], images: Images, search: Search):
        self._proxies, self._held_out = proxies, images.held_out
        real = some(images.whole, search.real, jax.random.key(2)).take(slice(None))
        self._whole = ImageSet(WHOLE, *(part[None] for part in real))
        self._test = some(images.test, search.tested, jax.random.key(3))

    def measure(self, design: Infinite) -> Row:
        """Kernel ridge regression on the proxies and on real images; see `Networks.measure`.

        A score is minus half the mean squared error, because accuracies of good kernels tie.
        """
        work = _Kernel(design)
        row: Row = {}
        for name, image_set in self._proxies.items():
            row[name] = work.on_held_out(image_set, self._held_out)[0]
        row[WHOLE], (alpha,) = work.on_held_out(self._whole, self._held_out)
        tested = work.reached(self._whole.images[0], alpha, self._test)
        row[WHOLE] |= {"test": tested.accuracy, "test_score": -tested.error}
        return row | {"compiling": work.compiling}


class _Kernel:
    """The regressions of one kernel."""

    def __init__(self, design: Infinite):
        self.mesh = sharding.make_mesh()
        kernel = shard_kernel(kernels.make_kernel(design.options), self.mesh)
        self.solution = jax.jit(lambda x, y: krr.solve(kernel(x, x), y, _REG))
        self.measure = make_measure(kernel)
        self.compiled: dict[Any, jax.stages.Compiled] = {}
        _, self.compiling = core_seconds(lambda: kernels.warm_up(design.options, print))

    def on_held_out(self, image_set: ImageSet, held_out: Targets) -> tuple[Row, list[jax.Array]]:
        """The row of a set, mean over its draws, and the solution of each draw."""
        reached, solved, total = [], [], 0.0
        for x, y in zip(image_set.images, image_set.labels, strict=True):
            alpha, took = self._timed(self.solution, *sharding.replicate(self.mesh, (x, y)))
            reached.append(self.reached(x, alpha, held_out))
            solved.append(alpha)
            total += took + reached[-1].seconds
        accuracy, error, _ = np.mean(reached, axis=0).tolist()
        return {"held_out": accuracy, "score": -error, "seconds": total}, solved

    def reached(self, support: np.ndarray, alpha: jax.Array, targets: Targets) -> Reached:
        """The results of a solution on real images."""
        size = min(_PER_PASS, len(targets.labels))
        sums, total = np.zeros(2), 0.0
        solved = sharding.replicate(self.mesh, (support, alpha))
        for start in range(0, len(targets.labels), size):
            rows = slice(start, start + size)
            labels = targets.labels[rows]
            batch = pad_rows(targets.images[rows], size), pad_rows(labels, size)
            x, y, _ = sharding.put_targets(self.mesh, *batch)
            count = np.int32(len(labels))
            found, took = self._timed(self.measure, *solved, x, y, count)
            sums, total = sums + len(labels) * np.array(found, np.float64), total + took
        accuracy, error = (sums / len(targets.labels)).tolist()
        return Reached(accuracy, error, total)

    def _timed(self, function: jax.stages.Wrapped, *arguments: Any) -> tuple[Any, float]:
        """The result of a function and its core seconds; compiling is counted apart."""
        key = (function, *(np.shape(one) for one in arguments))
        if key not in self.compiled:
            lowered = function.lower(*arguments)
            self.compiled[key], took = core_seconds(lowered.compile)
            self.compiling += took
        return core_seconds(lambda: self.compiled[key](*arguments))
