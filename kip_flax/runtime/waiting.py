"""Waiting for long computations: prints their time, and stops waiting at a signal.

A compiled program, or the compiler, may take minutes in one call, during which Python handles no
signal. `Watch.wait` runs it in a thread of its own and checks for signals meanwhile.
"""

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax

from kip_flax.runtime import multihost
from kip_flax.runtime.console import Console, duration

Result = TypeVar("Result")
SILENCE = 7.0  # Seconds without a line, at most, while `Watch.wait` waits.
GRACE = 3.0  # Seconds that a computation may still take after a signal to stop.
_LOOK = 0.25  # Seconds between two checks.
_BETWEEN = 4.0  # Seconds between two lines of `Watch.progress`, at least.


class Stopped(Exception):
    """A signal asked to stop. There is no result; the computation may go on in its thread."""


@dataclass
class Watch:
    """Watches the computations of one command.

    Attributes:
        stopping: () -> whether a signal asked to stop.
        console: prints the progress.
    """

    stopping: Callable[[], bool]
    console: Console
    _last_shown: float = field(default_factory=time.monotonic)

    def wait(self, what: str, compute: Callable[[], Result]) -> Result:
        """The result of `compute`, with its arrays computed.

        Meanwhile it prints a line now and then. After a signal to stop it gives up, unless the
        result is there within `GRACE` seconds.

        Args:
            what: the name of the computation in the line.
            compute: is called in a thread, and may be left behind there. Its errors are raised.

        Raises:
            Stopped: a signal asked to stop.
        """
        done = threading.Event()
        found: list[Any] = []
        wide = bool(jax.config.read("jax_enable_x64"))  # Each thread has its own.
        arguments = compute, wide, found, done
        thread = threading.Thread(target=_computing, args=arguments, daemon=True)
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

    def progress(self, text: str, *figures: str) -> None:
        """Prints progress, unless a line was printed just now."""
        if time.monotonic() - self._last_shown > _BETWEEN:
            self.tell(text, *figures)

    def tell(self, text: str, *figures: str) -> None:
        """Prints progress at once."""
        self._last_shown = time.monotonic()
        self.console.progress(text, *figures)

    def check(self) -> None:
        """Raises Stopped if a signal asked to stop."""
        if self.stopping():
            raise Stopped


@contextlib.contextmanager
def stopping_together() -> Iterator[None]:
    """Turns a stop of one process into one of all; the body must hold no collectives.

    Raises:
        Stopped: at all processes, if one of them was stopped in the body.
    """
    stopped = False
    try:
        yield
    except Stopped:
        stopped = True
    if multihost.any_process(stopped):
        raise Stopped


def _computing(
    compute: Callable[[], Any], wide: bool, found: list[Any], done: threading.Event
) -> None:
    try:
        with jax.enable_x64(wide):
            found.extend((jax.block_until_ready(compute()), None))
    except BaseException as error:  # noqa: BLE001  `Watch.wait` raises it.
        found[:] = [None, error]
    done.set()


def _leave_behind(thread: threading.Thread, code: int) -> None:
    """Ends the process at once if `thread` still computes; Python's own exit would wait for it.

    XLA finishes what it has begun, which may take minutes. All files are closed by then. `code` is
    the process's, unless a script ended by an error that it did not catch.
    """
    if thread.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        error = getattr(sys, "last_value", None)
        if error is not None:
            code = 130 if isinstance(error, KeyboardInterrupt) else 1
        os._exit(code)
