"""Core seconds of the program, in which other work on the machine does not count."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

import jax

Result = TypeVar("Result")


def core_seconds(compute: Callable[[], Result]) -> tuple[Result, float]:
    """The result of `compute`, with its arrays computed, and the core seconds that it took."""
    began = now()
    result = jax.block_until_ready(compute())
    return result, now() - began


def now() -> float:
    """Core seconds of this process and of those that it waited for, since it began."""
    return time.process_time() + sum(os.times()[2:4])  # `os.times` counts in hundredths.
