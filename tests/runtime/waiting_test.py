"""Waiting for long computations: lines meanwhile, signals, errors, and the end of the process."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
import types

import jax
import jax.numpy as jnp
import pytest

from kip_flax.runtime import waiting
from kip_flax.runtime.console import Console


@pytest.fixture
def quick(monkeypatch):
    """A second is a hundredth of one."""
    for name in ("SILENCE", "GRACE", "_LOOK", "_BETWEEN"):
        monkeypatch.setattr(waiting, name, getattr(waiting, name) / 100)


def watch(stopping=lambda: False):
    stream = io.StringIO()
    return waiting.Watch(stopping, Console(stream)), lambda: stream.getvalue().splitlines()


def test_what_was_computed_is_returned_and_errors_are_raised(quick):
    one, _ = watch()
    assert float(one.wait("adding", lambda: jnp.float32(1) + 1)) == 2
    with pytest.raises(ValueError, match="twice"):
        one.wait("failing", lambda: (_ for _ in ()).throw(ValueError("twice")))


def test_lines_are_printed_while_it_lasts(quick):
    one, lines = watch()
    one.wait("compiling", lambda: time.sleep(0.5))
    assert 3 <= len(lines()) <= 8
    assert set(lines()) <= {"compiling: 0 s so far", "compiling: 1 s so far"}


def test_progress_is_printed_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(waiting, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    one, lines = watch()
    one._last_shown = 0.0
    for step in range(10):
        one.progress(f"step {step}")
        now[0] += 1.5  # A line is due after four seconds.
    one.tell("the end")
    assert lines() == ["step 3", "step 6", "step 9", "the end"]


def test_what_takes_longer_than_the_grace_is_left_behind(quick, monkeypatch):
    at_end = []
    monkeypatch.setattr(waiting.atexit, "register", lambda *call: at_end.append(call))
    one, _ = watch(lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(waiting, "GRACE", 60.0)
        assert one.wait("adding", lambda: time.sleep(0.02) or 3) == 3  # It is there in time.
    began = time.monotonic()
    with pytest.raises(waiting.Stopped):
        one.wait("sleeping", lambda: time.sleep(1))
    assert time.monotonic() - began < 0.7
    ((_, thread, code),) = at_end
    assert thread.is_alive()
    assert code == 0
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.delattr(sys, "last_value", raising=False)
    waiting._leave_behind(thread, 0)
    monkeypatch.setattr(sys, "last_value", KeyboardInterrupt(), raising=False)
    waiting._leave_behind(thread, 0)  # `distill` raised it, and the script did not catch it.
    monkeypatch.setattr(sys, "last_value", ZeroDivisionError())
    waiting._leave_behind(thread, 0)
    thread.join()
    waiting._leave_behind(thread, 0)  # Python may end by itself.
    assert left == [0, 130, 1]


COMPUTING = """
    import time, jax
    from kip_flax.runtime import signals, waiting
    from kip_flax.runtime.console import Console

    x = jax.numpy.ones((300, 300))
    @jax.jit
    def many(x):
        return jax.lax.fori_loop(0, 10**7, lambda i, y: y @ x * 1e-3, x)

    with signals.stop_signals() as stopping:
        watch = waiting.Watch(stopping, Console())
        watch.say("begun")
        try:
            watch.wait("computing", lambda: many(x))
        except waiting.Stopped:
            watch.say("stopped")
"""


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_the_process_ends_although_xla_computes_for_hours(sent):
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(COMPUTING)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(sent)
    assert process.communicate(timeout=60)[0] == "stopped\n"
    assert process.returncode == 0
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("wide", [False, True])
def test_a_thread_computes_in_the_precision_of_its_caller(wide):
    watch = waiting.Watch(lambda: False, Console(quiet=True))
    with jax.enable_x64(wide):
        found = watch.wait("numbers", lambda: jnp.zeros(1, jnp.float64 if wide else None))
    assert found.dtype == (jnp.float64 if wide else jnp.float32)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_all_processes_stop_where_one_is_stopped(here, elsewhere, monkeypatch):
    asked = []

    def any_process(flag):
        asked.append(flag)
        return flag or elsewhere

    monkeypatch.setattr(waiting.multihost, "any_process", any_process)
    stops = pytest.raises(waiting.Stopped) if here or elsewhere else contextlib.nullcontext()
    with stops, waiting.stopping_together():
        if here:
            raise waiting.Stopped
    assert asked == [here]
