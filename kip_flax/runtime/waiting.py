"""Wait for long computations: print their time, and stop waiting at a signal.

A compiled program, or the compiler, may take minutes in one call, in which Python hears no signal.
`Watch.wait` runs it in a thread of its own and looks around meanwhile.
"""

import atexit
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax

from kip_flax.runtime.console import Console, duration

Result = TypeVar("Result")
SILENCE = 7.0  # Seconds without a line at most, as far as a look around can help it.
GRACE = 3.0  # Seconds that a computation may take to its end after a signal to stop.
_LOOK = 0.25  # Seconds between two looks around.
_BETWEEN = 4.0  # Seconds between two lines of progress at least, in a log.


class Stopped(Exception):
    """A signal asked to stop: what was computed is not there, and may go on in its thread."""


@dataclass
class Watch:
    """Over the computations of one command.

    Attributes:
        stopping: () -> whether a signal asked to stop.
        console: prints the progress.
    """

    stopping: Callable[[], bool]
    console: Console
    _last_shown: float = field(default_factory=time.monotonic)

    def wait(self, what: str, compute: Callable[[], Result]) -> Result:
        """What `compute` returns, its arrays computed.

        Meanwhile a line is printed now and then. It ends early when a signal asks to stop, unless
        the result is there within `GRACE` seconds.

        Args:
            what: is being done, for the line.
            compute: is called in a thread, and may be left behind there.

        Raises:
            Stopped: told to stop.
        """
        done = threading.Event()
        found: list[Any] = []
        thread = threading.Thread(target=_computing, args=(compute, found, done), daemon=True)
        began, asked = time.monotonic(), None
        thread.start()
        try:
            while not done.wait(_LOOK):
                now = time.monotonic()
                if asked is None and self.stopping():
                    asked = now
                if asked is not None and now - asked > GRACE:
                    raise Stopped
                if now - self._last_shown > SILENCE:
                    self.tell(f"{what}: {duration(now - began)} so far")
        except (Stopped, KeyboardInterrupt) as reason:
            atexit.register(_leave_behind, thread, 0 if isinstance(reason, Stopped) else 130)
            raise
        result, error = found
        if error is not None:
            raise error
        return result

    def say(self, text: str) -> None:
        """Prints lines that stay."""
        self._last_shown = time.monotonic()
        self.console.say(text)

    def progress(self, text: str, *figures: str, last: bool = False) -> None:
        """Prints progress, unless a line was printed just now; the `last` one always."""
        if last or time.monotonic() - self._last_shown > _BETWEEN:
            self.tell(text, *figures)

    def tell(self, text: str, *figures: str) -> None:
        """Tells progress."""
        self._last_shown = time.monotonic()
        self.console.progress(text, *figures)

    def check(self) -> None:
        """Raises Stopped if a signal asked to stop."""
        if self.stopping():
            raise Stopped


def end_soon() -> None:
    """Skips Python's last garbage collection, which takes seconds on a busy machine."""
    gc.freeze()


def _computing(compute: Callable[[], Any], found: list[Any], done: threading.Event) -> None:
    try:
        found.extend((jax.block_until_ready(compute()), None))
    except BaseException as error:  # noqa: BLE001  It is raised where it is waited for.
        found[:] = [None, error]
    done.set()


def _leave_behind(thread: threading.Thread, code: int) -> None:
    """Ends the process at once if `thread` still computes: Python's own end waits for it.

    XLA runs what it has begun to its end, which may be minutes away; all files are closed here.
    """
    if thread.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
