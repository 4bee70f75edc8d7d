"""Transfer and compare in a process: lines of progress, a signal at any moment, going on."""

import itertools
import re
import signal
import subprocess
import sys
import threading
import time

import command
import pytest

WIDE = ("--config.transfer.recipe=kip", "--config.transfer.networks=('kernel',)")
SMALL = (
    *("--config.transfer.width=8", "--config.transfer.seeds=2", "--config.eval.num_test=50"),
    *("--config.transfer.networks=('kernel',)", "--config.mesh.cpu_devices=2"),
)


class Trainings:
    """A transfer or a comparison under way; `lines` are (seconds since its start, text)."""

    def __init__(self, mode, file, *arguments):
        named = "--compare" if mode == "compare" else "--distilled"
        given = (command.DIGITS, f"--mode={mode}", f"{named}={file}", *arguments)
        self.began, self.lines = time.monotonic(), []
        self.process = subprocess.Popen(
            [sys.executable, "-u", "main.py", *given],
            cwd=command.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic() - self.began, line.rstrip()))

    def wait_for(self, pattern, seconds):
        until = time.monotonic() + seconds
        while not any(re.search(pattern, line) for _, line in self.lines):
            assert time.monotonic() < until, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.05)

    def stop(self, sent):
        """Seconds until the process has ended."""
        asked = time.monotonic()
        self.process.send_signal(sent)
        try:
            assert self.process.wait(60) == 0
        finally:
            self.process.kill()
        return time.monotonic() - asked

    def longest_silence(self):
        times = [at for at, _ in self.lines]
        return max(b - a for a, b in itertools.pairwise(times))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "sent"),
    [("transfer", signal.SIGTERM), ("transfer", signal.SIGINT), ("compare", signal.SIGTERM)],
)
def test_a_signal_stops_it_and_the_same_command_goes_on(mode, sent, files, tmp_path):
    arguments = (mode, files, f"--workdir={tmp_path}", *SMALL)
    long = Trainings(*arguments, "--config.transfer.num_steps=200000")
    long.wait_for(r"about .*: 2 trainings of kernel, 2 at a time \(compiling", 300)
    long.wait_for(r"step \d+/200000", 60)
    assert long.stop(sent) < 10
    assert long.lines[-1][1] == "stopped and saved: the same command goes on from there"
    assert long.longest_silence() < 20  # A machine that others share.
    again = Trainings(*arguments, "--config.transfer.num_steps=200000")
    again.wait_for(r"step \d+/200000", 300)
    again.stop(sent)

    def steps(trainings):
        return [int(m[1]) for _, line in trainings.lines if (m := re.search(r"step (\d+)/", line))]

    assert steps(again)[0] > steps(long)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("moment", [r"compiling|timing", r"round 1 of \d: step"])
def test_at_width_1024_it_is_never_silent_and_stops_soon(moment, files, tmp_path):
    wide = Trainings("transfer", files, f"--workdir={tmp_path}", *WIDE)
    wide.wait_for(moment, 1200)
    time.sleep(20)
    seconds = wide.stop(signal.SIGTERM)
    assert wide.lines[-1][1] == "stopped and saved: the same command goes on from there"
    assert wide.longest_silence() <= 10
    assert seconds <= 10
