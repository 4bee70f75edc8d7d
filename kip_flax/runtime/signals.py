"""SIGTERM and SIGINT as a flag that a loop checks."""

import contextlib
import signal
import types
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns True after SIGTERM or SIGINT; a second one acts as before."""
    seen: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: types.FrameType | None) -> None:
        del frame
        seen.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)

    for known in (signal.SIGTERM, signal.SIGINT):
        before[known] = signal.signal(known, note)
    try:
        yield lambda: bool(seen)
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
