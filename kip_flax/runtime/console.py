"""The messages of a command to the person who started it, at a terminal or in a log file.

At a terminal one line of progress is rewritten in place, and headings are bold. Elsewhere (a file,
a pipe, TERM=dumb) every line is plain and stays. NO_COLOR (no-color.org) turns styles off. Paths
below the current folder are printed relative to it.
"""

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_GAP = "  "


class Console:
    """Prints for a person: blocks, marks, and one line of progress that a terminal rewrites.

    Args:
        stream: where to print; None: stdout.
        quiet: prints outcomes only.
        silent: prints nothing, because another process prints.
        environment: variables, of which TERM and NO_COLOR are read.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        quiet: bool = False,
        silent: bool = False,
        environment: Mapping[str, str] = os.environ,
    ):
        self._stream = stream or sys.stdout
        self._quiet, self._silent = quiet or silent, silent
        self._terminal = self._stream.isatty() and environment.get("TERM") != "dumb"
        self._colour = self._terminal and not environment.get("NO_COLOR")
        self._open = self._closed = False
        self._mark = ""
        self._shown: tuple[str, ...] = ()

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the line of progress, so that an error after it has a line of its own."""
        self.end_line()

    def say(self, text: str, rows: Sequence[tuple[str, str]] = ()) -> None:
        """Prints `text` on lines of its own, with `rows` of (name, value) below it."""
        if not self._quiet:
            self._block(text, rows)

    def outcome(self, text: str, rows: Sequence[tuple[str, str]] = ()) -> None:
        """Prints as `say` does, also when the console is quiet."""
        if not self._silent:
            self._block(text, rows)

    def mark(self, text: str, short: str) -> None:
        """Reports an event: as `text` in a log, as `short` in a terminal's line of progress."""
        self._mark = short
        if self._open:
            self.progress(*self._shown)
        else:  # There is no line of progress; in a log there never is.
            self.say(text)

    def progress(self, text: str, *figures: str) -> None:
        """Shows progress, in place of the last one at a terminal.

        Args:
            text: always shown.
            figures: further parts, the most important last; a terminal shows as many of the last
                as fit.
        """
        if self._quiet:
            return
        if not self._terminal:
            self._write(_GAP.join((text, *figures)) + "\n")
            return
        self._shown = (text, *figures)
        columns = shutil.get_terminal_size().columns - 1
        line = _fitting((text, *filter(None, [self._mark]), *reversed(figures)), columns)
        self._write("\r" + line.ljust(columns))
        self._open = True

    def end_line(self) -> None:
        """Ends the line of progress and leaves it as it is."""
        if self._open:
            self._write("\n")
        self._open = False

    def _block(self, text: str, rows: Sequence[tuple[str, str]]) -> None:
        self.end_line()
        width = max((len(name) for name, _ in rows), default=0)
        heading = f"{_BOLD}{text}{_PLAIN}" if rows and self._colour else text
        lines = [heading] + [f"  {self._dim(name.ljust(width))}  {value}" for name, value in rows]
        self._write("\n".join(lines) + "\n")

    def _dim(self, text: str) -> str:
        return f"{_DIM}{text}{_PLAIN}" if self._colour else text

    def _write(self, text: str) -> None:
        if self._closed:
            return
        try:
            text = _from_here(text)
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # The stream's encoding, such as Latin-1, lacks a letter.
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except BrokenPipeError:  # Nobody reads any more, as after `| head`: the work goes on.
            self._closed = True
            with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())  # What is left in the buffer.


def _from_here(text: str) -> str:
    """`text` with paths below the current folder made relative to it."""
    try:
        here = os.path.join(os.getcwd(), "")
    except FileNotFoundError:  # The folder was removed.
        return text
    return text if here == os.sep else re.sub(rf"(?<![\w.~-]){re.escape(here)}(?=\S)", "", text)


def _fitting(parts: Sequence[str], columns: int) -> str:
    """The first of `parts` in one line, as many whole ones as fit."""
    line = parts[0][:columns]
    for part in parts[1:]:
        if len(line) + len(_GAP) + len(part) > columns:
            break
        line += _GAP + part
    return line


def clock(seconds: float, now: float | None = None) -> str:
    """The local time in `seconds` from now: 14:05, or 2026-05-31 14:05 on another day.

    Args:
        seconds: from now.
        now: seconds since the epoch; None: the current time.
    """
    now = time.time() if now is None else now
    today, then = time.localtime(now), time.localtime(now + seconds)
    return time.strftime("%H:%M" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)


def duration(seconds: float) -> str:
    """Seconds as a person writes them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: float) -> str:
    """A number as a person reads it: 950, 12.3k, 4.56M."""
    rounded = float(f"{number:.3g}")
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:.3g}{unit}"
    return f"{rounded:.3g}"
