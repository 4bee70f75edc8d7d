"""When a run has to end, so that its last evaluation comes in time."""

import contextlib
import time
from collections.abc import Callable, Iterator

from kip_flax.runtime import multihost


class Deadline:
    """The time limit of a run, and how long its steps and evaluations take.

    Args:
        seconds: of the whole run, all its parts together; 0: no limit.
        spent: seconds so far.
    """

    def __init__(self, seconds: float, spent: Callable[[], float]):
        self._seconds, self._spent = seconds, spent
        self._step = self._evaluation = 0.0
        self._reached = multihost.agreed(self._is_reached)

    @property
    def is_set(self) -> bool:
        """Whether there is a limit."""
        return self._seconds > 0

    def eta(self, seconds: float) -> float:
        """Seconds to the end of a run whose steps need `seconds` more."""
        return min(seconds, max(0.0, self._seconds - self._spent())) if self.is_set else seconds

    def reached(self) -> bool:
        """Whether the next step and an evaluation after it may take too long.

        All processes say the same.
        """
        return self.is_set and self._reached()

    def passed(self) -> bool:
        """Whether the time is over; all processes say the same, and wait for it."""
        return self.is_set and multihost.any_process(self._spent() >= self._seconds)

    def took(self, seconds: float) -> None:
        """A step took so long. The longest one counts."""
        self._step = max(self._step, seconds)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Measures an evaluation. The longest one counts."""
        begin = time.perf_counter()
        yield
        self._evaluation = max(self._evaluation, time.perf_counter() - begin)

    def _is_reached(self) -> bool:
        return self._spent() + self._step + self._evaluation > self._seconds
