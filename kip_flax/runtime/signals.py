"""SIGTERM and SIGINT as a flag that a loop checks."""

import contextlib
import signal
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns True after SIGTERM or SIGINT; a second one acts as before.

    Outside the main thread, which alone may handle signals, it returns False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: types.FrameType | None) -> None:
        del frame
        seen.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)

    for known in (signal.SIGTERM, signal.SIGINT):  # None: a handler that Python did not set.
        before[known] = signal.signal(known, note) or signal.SIG_DFL
    try:
        yield lambda: bool(seen)
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
