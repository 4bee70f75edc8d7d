"""Infinitely wide networks, regressed on each set: what they reach, and what that takes."""

from collections.abc import Mapping
from typing import Any

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

_REG = 1e-6  # Of `krr.solve`.
_PER_PASS = 500  # Images that are tested at a time.


class Kernels:
    """Regresses with kernels on sets; arguments as of `finite.Networks`."""

    def __init__(self, proxies: Mapping[str, ImageSet], images: Images, search: Search):
        self._proxies, self._held_out = proxies, images.held_out
        real = some(images.whole, search.real, jax.random.key(2)).take(slice(None))
        self._whole = ImageSet(WHOLE, *(part[None] for part in real))
        self._test = some(images.test, search.tested, jax.random.key(3))

    def measure(self, design: Infinite) -> Row:
        """Kernel ridge regression on the proxies and on real images; see `Networks.measure`."""
        work = _Kernel(design)
        row: Row = {}
        for name, image_set in self._proxies.items():
            row[name] = work.on_held_out(image_set, self._held_out)[0]
        row[WHOLE], (alpha,) = work.on_held_out(self._whole, self._held_out)
        row[WHOLE]["test"] = work.accuracy(self._whole.images[0], alpha, self._test)[0]
        return row | {"compiling": work.compiling}


class _Kernel:
    """The regressions of one kernel."""

    def __init__(self, design: Infinite):
        self.mesh = sharding.make_mesh()
        kernel = shard_kernel(kernels.make_kernel(design.options), self.mesh)
        self.solution = jax.jit(lambda x, y: krr.solve(kernel(x, x), y, _REG))
        self.measure = make_measure(kernel)
        self.compiled: dict[Any, jax.stages.Compiled] = {}
        self.compiling = 0.0

    def on_held_out(self, image_set: ImageSet, held_out: Targets) -> tuple[Row, list[jax.Array]]:
        """What a set reaches, mean over its draws, and the solution of each."""
        accuracies, solved, total = [], [], 0.0
        for x, y in zip(image_set.images, image_set.labels, strict=True):
            alpha, solving = self._timed(self.solution, *sharding.replicate(self.mesh, (x, y)))
            accuracy, testing = self.accuracy(x, alpha, held_out)
            accuracies.append(accuracy)
            solved.append(alpha)
            total += solving + testing
        return {"held_out": float(np.mean(accuracies)), "seconds": total}, solved

    def accuracy(
        self, support: np.ndarray, alpha: jax.Array, targets: Targets
    ) -> tuple[float, float]:
        """Share of right answers, and the core seconds that finding it out took."""
        size = min(_PER_PASS, len(targets.labels))
        right, total = 0.0, 0.0
        solved = sharding.replicate(self.mesh, (support, alpha))
        for start in range(0, len(targets.labels), size):
            rows = slice(start, start + size)
            labels = targets.labels[rows]
            batch = pad_rows(targets.images[rows], size), pad_rows(labels, size)
            x, y, _ = sharding.put_targets(self.mesh, *batch)
            count = np.int32(len(labels))
            (share, _), took = self._timed(self.measure, *solved, x, y, count)
            right, total = right + float(share) * len(labels), total + took
        return right / len(targets.labels), total

    def _timed(self, function: jax.stages.Wrapped, *arguments: Any) -> tuple[Any, float]:
        """What a function returns, and the core seconds of it; compiling is counted apart."""
        key = (function, *(np.shape(one) for one in arguments))
        if key not in self.compiled:
            lowered = function.lower(*arguments)
            self.compiled[key], took = core_seconds(lowered.compile)
            self.compiling += took
        return core_seconds(lambda: self.compiled[key](*arguments))
