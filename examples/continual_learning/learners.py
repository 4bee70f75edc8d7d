"""The learners: kernel ridge regression and networks, trained on the memory from scratch."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from examples.continual_learning.memory import Memory
from examples.continual_learning.settings import Setting
from examples.continual_learning.stream import CLASSES_A_STEP, Stream
from kip_flax import architectures, kernels, krr, preprocess
from kip_flax.data import Targets, centered_one_hot, evenly
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.networks import build, recipe, train
from kip_flax.networks.trial import Trial
from kip_flax.runtime import sharding
from kip_flax.runtime.waiting import Watch

NETWORKS = 2  # Networks trained on each memory; their mean counts.
_BATCH = 500  # Test images per call of the kernel.
_SCALED_BY = 2000  # Training images of the first step whose deviation scales the inputs.


@dataclass(frozen=True, eq=False)
class Lesson:
    """A memory as the learners see it, step by step, and the test images.

    Attributes:
        stream: the steps.
        images: the images of the memory, preprocessed.
        memory: the same images as pixels, with labels.
        test: test images of all classes, preprocessed.
        watch: reports progress, and stops at a signal.
    """

    stream: Stream
    images: np.ndarray
    memory: Memory
    test: Targets
    watch: Watch

    def steps(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """For each step: classes so far, images in the memory, and rows of the test images."""
        for step in range(1, len(self.stream.steps) + 1):
            seen = CLASSES_A_STEP * step
            yield seen, self.memory.after(step), np.flatnonzero(self.test.labels < seen)


def make_lesson(stream: Stream, memory: Memory, test: Targets, watch: Watch) -> Lesson:
    """A lesson from `memory`, with its images preprocessed for the learners."""
    return Lesson(stream, preprocess.apply(stream.fitted, memory.pixels), memory, test, watch)


Learner = Callable[[Lesson], list[float]]  # Accuracies, 0 to 1, after each step.


def make_krr(setting: Setting) -> Learner:
    """Kernel ridge regression with the exact kernel of ConvNet.

    The kernel of an earlier step is a corner of the last one's, so it is computed once.
    """
    mesh = sharding.make_mesh()
    kernel = shard_kernel(kernels.make_kernel(architectures.convnet(setting.depth)), mesh)
    cross, gram = jax.jit(kernel), jax.jit(lambda x: kernel(x, x))

    def learn(lesson: Lesson) -> list[float]:
        x, labels, test = jnp.asarray(lesson.images), lesson.memory.labels, lesson.test
        watch = lesson.watch
        k_ss = np.asarray(watch.wait("kernel of the memory", lambda: gram(x)))
        parts: list[np.ndarray] = []
        for first in range(0, len(test.labels), _BATCH):
            batch = jnp.asarray(test.images[first : first + _BATCH])
            compute = functools.partial(cross, batch, x)
            parts.append(np.asarray(watch.wait("kernel of the test images", compute)))
            watch.progress(f"kernel of {first + len(batch)}/{len(test.labels)} test images")
        k_ts = np.concatenate(parts)
        found = []
        for seen, size, rows in lesson.steps():
            y = centered_one_hot(labels[:size], seen)
            krr.check_positive_definite(k_ss[:size, :size], setting.reg)
            alpha = krr.solve(k_ss[:size, :size], y, setting.reg)
            predictions = krr.predict(k_ts[rows, :size], alpha)
            found.append(float(krr.accuracy(predictions, test.labels[rows])))
        return found

    return learn


@dataclass(frozen=True, eq=False)
class Networks:
    """ConvNets of finite width, trained by the recipe 'auto'.

    They are compiled once for each number of classes and of images.

    Attributes:
        setting: the settings of the data set.
        mesh: each of its devices trains a network.
    """

    setting: Setting
    mesh: Mesh
    _trainers: dict[tuple[int, int], train.Trainer] = field(default_factory=dict)

    def __call__(self, lesson: Lesson) -> list[float]:
        """Mean accuracies of `NETWORKS` networks; raises `trial.Diverged` if one diverges."""
        found, labels, test = [], lesson.memory.labels, lesson.test
        for seen, size, rows in lesson.steps():
            trial = self._trial(
                lesson, seen, size, Targets(test.images[rows], test.labels[rows], seen)
            )
            y = np.asarray(centered_one_hot(labels[:size], seen))
            outcome = trial.run(
                lesson.images[None, :size], y[None], lesson.watch, f"{seen} classes"
            )
            found.append(float(np.mean(outcome.accuracies)))
        return found

    def _trial(self, lesson: Lesson, seen: int, size: int, test: Targets) -> Trial:
        first = lesson.stream.steps[0]
        *_, channels = first.image_shape
        chosen = recipe.make("auto", size, channels, first.mirrorable, self.setting.network)
        if (seen, size) not in self._trainers:  # The recipe depends on the number of images.
            spec = architectures.convnet_plain(self.setting.depth)
            make = lambda rngs: build.make_network(  # noqa: E731
                spec, first.image_shape, seen, rngs, width=chosen.width
            )
            net = build.functions(make)
            self._trainers[seen, size] = train.make_trainer(net, chosen, self.mesh)
        rows = evenly(len(first.train_labels), _SCALED_BY)
        known = preprocess.apply(lesson.stream.fitted, first.train_images[rows])
        return Trial(
            self._trainers[seen, size],
            chosen,
            self.mesh,
            validation=Targets(known, first.train_labels[rows], CLASSES_A_STEP),
            test=test,
            key=jax.random.key(lesson.stream.number),
            seeds=NETWORKS,
        )


def make_networks(setting: Setting) -> Learner:
    """See `Networks`."""
    return Networks(setting, Mesh(np.array(jax.local_devices()[:NETWORKS]), ("networks",)))


LEARNERS: dict[str, Callable[[Setting], Learner]] = {"krr": make_krr, "network": make_networks}
