"""Core seconds of this process, in which other work on the machine does not count."""

import time
from collections.abc import Callable
from typing import TypeVar

import jax

Result = TypeVar("Result")


def core_seconds(compute: Callable[[], Result]) -> tuple[Result, float]:
    """The result of `compute`, with its arrays computed, and the core seconds that it took."""
    began = time.process_time()
    result = jax.block_until_ready(compute())
    return result, time.process_time() - began
