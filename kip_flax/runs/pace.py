"""How fast a run steps, when it will end, and when it says so."""

import contextlib
import time
from collections.abc import Collection

import jax
import numpy as np

from kip_flax.algorithms.interface import State
from kip_flax.runs.deadline import Deadline
from kip_flax.runtime import metrics, multihost
from kip_flax.runtime.console import Console, clock, duration

_LONG = 60  # Seconds; shorter runs do not announce their end.
_SILENCE = 10  # Seconds between two lines of progress, at most, unless a step takes longer.


class Pace:
    """Times the steps of a run since it began or went on.

    Args:
        stopwatch: started at the step before the first.
        deadline: gets the seconds of the steps.
        console: where the end is announced.
        log_every: most steps between lines of progress.
        eval_steps: the steps after which the run is evaluated, with the last one.

    Attributes:
        log_every: steps between lines of progress, the same number at all processes.
    """

    def __init__(
        self,
        stopwatch: metrics.Stopwatch,
        deadline: Deadline,
        console: Console,
        log_every: int,
        eval_steps: Collection[int],
    ):
        self._eval_steps = eval_steps
        self._stopwatch, self._deadline, self._console = stopwatch, deadline, console
        self.log_every = log_every
        self._steps, self._announced = 0, False

    def stepped(self, state: State, step: int, began: float) -> None:
        """Counts `step`, and waits for its `state` where it is timed.

        It began when `time.perf_counter` was `began`.
        """
        self._steps += 1
        if self._steps == 1:  # Timings leave out the compilation.
            jax.block_until_ready(state)
            self._stopwatch.restart(step)
        elif self._steps == 2 or self._deadline.is_set:
            jax.block_until_ready(state)
            seconds = time.perf_counter() - began
            self._deadline.took(seconds)
            if self._steps == 2:
                self._set_log_every(seconds)

    def look(self, step: int) -> dict[str, float]:
        """The figures of `Stopwatch.look`, `eta_s` with the evaluations; {} after the first step.

        The first estimate of a long run is announced.
        """
        figures = dict(self._stopwatch.look(step))
        if not figures:
            return {}
        remaining = sum(mark >= step for mark in self._eval_steps)
        figures["eta_s"] = self._deadline.eta(figures["eta_s"], remaining)
        if not self._announced:
            self._announced = True
            if figures["eta_s"] >= _LONG:
                seconds = figures["eta_s"]
                self._console.say(f"expected to end at {clock(seconds)}, in {duration(seconds)}")
        return figures

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Excludes the time spent in this context, such as evaluation and writing."""
        return self._stopwatch.paused()

    def _set_log_every(self, step_seconds: float) -> None:
        shared = float(multihost.of_first(np.array(step_seconds)))
        self.log_every = max(1, min(self.log_every, int(_SILENCE / max(shared, 1e-6))))
