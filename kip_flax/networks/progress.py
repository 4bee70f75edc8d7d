"""Records of a trial: its progress, the results of its trainings, and their cost."""

from collections.abc import Callable
from dataclasses import dataclass, field

from kip_flax.networks.build import Tree


@dataclass(frozen=True)
class Measured:
    """The result of one training.

    Attributes:
        rate, l2: the candidate.
        seed: of weights, batches and draw.
        largest: the largest rate that its tangent kernel allows, the unit of `rate`; None if `rate`
            is absolute.
        choice: whether it was one of the short trainings that choose a candidate.
        accuracy: 0 to 1, on the validation images if `choice`, otherwise on the test images; None
            if it diverged.
    """

    rate: float
    l2: float
    seed: int
    largest: float | None
    choice: bool
    accuracy: float | None

    @property
    def learning_rate(self) -> float:
        """The rate as an absolute number."""
        return self.rate if self.largest is None else self.rate * self.largest


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Attributes:
        rate, l2: the candidate that was chosen.
        trained: its trainings, in the order of the seeds.
        tried: the short trainings of all candidates; [] if there was only one candidate.
    """

    rate: float
    l2: float
    trained: list[Measured]
    tried: list[Measured]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies of the seeds, 0 to 1."""
        return [one.accuracy for one in self.trained if one.accuracy is not None]


@dataclass
class Progress:
    """The state of a trial: everything that it needs to resume.

    Attributes:
        measured: finished trainings.
        states, step: states of the current round after `step` steps; None if it has not begun.
    """

    measured: list[Measured] = field(default_factory=list)
    states: Tree | None = None
    step: int = 0


@dataclass(frozen=True)
class Trained:
    """The trained network of one seed.

    Attributes:
        seed: of weights and batches.
        held_out, test: accuracies (0 to 1) on the validation images and on the test images.
        weights: reads its weights from the device, see `train.weights_of`.
    """

    seed: int
    held_out: float
    test: float
    weights: Callable[[], Tree]


@dataclass(frozen=True)
class Hooks:
    """The progress from which a trial resumes, and the functions that receive its results.

    Attributes:
        progress: where an earlier part ended, as it was passed to `save`.
        save: called with the progress now and then, and on a request to stop.
        trained: called with the network of every seed that did not diverge; None: not called.
    """

    progress: Progress = field(default_factory=Progress)
    save: Callable[[Progress], None] = lambda _: None
    trained: Callable[[Trained], None] | None = None


@dataclass(frozen=True)
class Cost:
    """Measured seconds of the trainings of a trial; compiling is separate.

    Attributes:
        compiling: spent on the measurement, mostly on compiling, which is not repeated.
        step: for a training step, on all devices at once.
        image: for an evaluated image, on all devices at once.
        once: once for all sets: finding the largest rates that the tangent kernels allow.
    """

    compiling: float
    step: float
    image: float
    once: float
