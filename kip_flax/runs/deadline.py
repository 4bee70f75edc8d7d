"""The time limit of a run: when to stop so that the last evaluation still fits."""

import contextlib
import time
from collections.abc import Callable, Iterator

from kip_flax.runtime import multihost


class Deadline:
    """The time limit of a run, and how long its steps and evaluations take.

    Args:
        seconds: limit of the whole run, summed over its parts; 0: no limit.
        spent: () -> seconds of the run so far.
        at_end: how many times as long as others the last evaluation takes, at most.
        longest: seconds of the longest evaluation in earlier parts of the run.

    Attributes:
        longest: seconds of the longest evaluation so far.
    """

    def __init__(
        self,
        seconds: float,
        spent: Callable[[], float],
        at_end: float = 1.0,
        longest: float = 0.0,
    ):
        self._seconds, self._spent, self._at_end = seconds, spent, at_end
        self._step, self.longest, self._latest = 0.0, longest, longest

    @property
    def is_set(self) -> bool:
        """Whether there is a limit."""
        return self._seconds > 0

    def eta(self, seconds: float, evaluations: int) -> float:
        """Seconds to the end of the run, which is where the limit is, at the latest.

        Args:
            seconds: of the remaining steps.
            evaluations: how many remain, that at the end included; each takes as long as the last.
        """
        if evaluations:
            seconds += self._latest * (evaluations - 1 + self._at_end)
        return min(seconds, max(0.0, self._seconds - self._spent())) if self.is_set else seconds

    def reached(self) -> bool:
        """Whether the next step and an evaluation after it may exceed the limit.

        All processes call it, wait, and get the same answer.
        """
        return self.is_set and multihost.any_process(self._is_reached())

    def passed(self) -> bool:
        """Whether the limit has passed; all processes call it, wait, and get the same answer."""
        return self.is_set and multihost.any_process(self._spent() >= self._seconds)

    def took(self, seconds: float) -> None:
        """Records the seconds of a step; the longest step counts."""
        self._step = max(self._step, seconds)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Times an evaluation; the longest one counts for the limit, the last one for `eta`."""
        begin = time.perf_counter()
        yield
        self._latest = time.perf_counter() - begin
        self.longest = max(self.longest, self._latest)

    def _is_reached(self) -> bool:
        return self._spent() + self._step + self._at_end * self.longest > self._seconds
