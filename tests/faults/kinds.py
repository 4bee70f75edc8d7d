"""The kinds of faults: each starts a run, breaks it, mends the cause, and says what happened."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import disks
import jobs

# A lost process is noticed after 100 s at the latest, on a busy machine later.
PATIENCE = 600


@dataclass(frozen=True)
class Happened:
    """What a fault did.

    Attributes:
        words: for the reader.
        step: the last step that the run reported.
        lost: the step to resume from, where it is not the newest saved one.
        slack: further steps that may be lost.
    """

    words: str
    step: int
    lost: int | None = None
    slack: int = 0


@dataclass(frozen=True)
class Kind:
    """A fault, the processes of its run, and whether it needs a disk of its own."""

    fault: Callable[[Path, tuple[str, ...], random.Random], Happened]
    processes: int = 1
    mounts: bool = False


def shape(processes: int) -> dict[str, Any]:
    """Two devices, in one process or two."""
    return {"processes": processes, "devices": 2 // processes}


def kill_one_of_two(workdir: Path, flags: tuple[str, ...], rng: random.Random) -> Happened:
    """SIGKILL to one of two processes at a random moment; the other ends by itself."""
    victim = rng.randrange(2)
    both = jobs.start(workdir, *flags, **shape(2))
    moment = wait_a_random_time(workdir, both, rng)
    both[victim].kill()
    ends = jobs.finish(both, PATIENCE)
    code = ends[1 - victim][0]
    assert code != 0 or finished(ends[0][1]), f"the other ended with {code}"
    return Happened(f"process {victim} of 2 killed {moment}", last_step(ends[0][1]))


def kill_all(workdir: Path, flags: tuple[str, ...], rng: random.Random) -> Happened:
    """SIGKILL to both processes at once."""
    both = jobs.start(workdir, *flags, **shape(2))
    moment = wait_a_random_time(workdir, both, rng)
    for job in both:
        job.kill()
    ends = jobs.finish(both, PATIENCE)
    return Happened(f"both of 2 killed {moment}", last_step(ends[0][1]))


def kill_the_only(workdir: Path, flags: tuple[str, ...], rng: random.Random) -> Happened:
    """SIGKILL to a run of one process."""
    (job,) = alone = jobs.start(workdir, *flags, **shape(1))
    moment = wait_a_random_time(workdir, alone, rng)
    job.kill()
    ((_, output, _),) = jobs.finish(alone, PATIENCE)
    return Happened(f"killed {moment}", last_step(output))


def terminate_one_of_two(workdir: Path, flags: tuple[str, ...], rng: random.Random) -> Happened:
    """SIGTERM to one of two processes stops both at the same step, saved."""
    process = rng.randrange(2)
    both = jobs.start(workdir, *flags, **shape(2))
    wait_for_step(workdir, both, rng.choice(range(0, 60, 5)))
    both[process].send_signal(signal.SIGTERM)
    ends = jobs.finish(both, PATIENCE)
    assert [code for code, _, _ in ends] == [0, 0], ends
    step = max(jobs.steps_saved(workdir))
    assert f"stopped and saved at step {step}" in ends[0][1] or finished(ends[0][1])
    return Happened(f"SIGTERM to process {process} of 2", step)


def full_disk(workdir: Path, flags: tuple[str, ...], rng: random.Random) -> Happened:
    """The disk is filled while the run writes; space is made again afterwards."""
    alone = jobs.start(workdir, *flags, **shape(1))
    step = rng.choice(range(0, 60, 5))
    wait_for_step(workdir, alone, step)
    time.sleep(rng.uniform(0, 0.1))
    filler = disks.fill(workdir.parent, rng.choice((0, 4096, 16384, 65536, 300000)))
    ((code, output, errors),) = jobs.finish(alone, PATIENCE)
    filler.unlink()
    if finished(output):
        return Happened("disk full, and it did not matter", last_step(output))
    line = only_error(code, errors, strict=False)
    noise = "" if errors.count("\n") == 1 else ", reported by Orbax's threads as well"
    what = "exporting" if "checkpoint to" not in line else "checkpointing"
    assert str(workdir) in line, line
    return Happened(f"disk full while {what}{noise}", last_step(output))


def read_only_disk(workdir: Path, flags: tuple[str, ...], rng: random.Random) -> Happened:
    """A run stopped by SIGTERM cannot go on while its disk is read-only."""
    alone = jobs.start(workdir, *flags, **shape(1))
    wait_for_step(workdir, alone, rng.choice(range(0, 60, 5)))
    alone[0].send_signal(signal.SIGTERM)
    ((code, output, _),) = jobs.finish(alone, PATIENCE)
    assert code == 0
    assert disks.read_only(workdir.parent, True)
    ((code, _, errors),) = jobs.finish(jobs.start(workdir, *flags, **shape(1)), PATIENCE)
    assert disks.read_only(workdir.parent, False)
    line = only_error(code, errors)
    assert f"cannot write to the workdir {workdir}" in line, line
    return Happened("stopped, then read-only", last_step(output))


def truncated_checkpoint(workdir: Path, flags: tuple[str, ...], rng: random.Random) -> Happened:
    """Killed, and the newest checkpoint is cut off: the one before is used."""
    alone = jobs.start(workdir, *flags, **shape(1))
    wait_for_step(workdir, alone, rng.choice(range(10, 60, 5)))
    alone[0].kill()
    ((_, output, _),) = jobs.finish(alone, PATIENCE)
    *_, before, newest = sorted(jobs.steps_saved(workdir))
    # Orbax keeps what each process wrote beside the one copy that it reads.
    parts = (workdir / "checkpoints" / str(newest) / "state" / "d").iterdir()
    largest = max(parts, key=lambda path: path.stat().st_size)
    os.truncate(largest, rng.randrange(largest.stat().st_size))
    return Happened(f"killed, checkpoint {newest} cut off", last_step(output), before, slack=5)


def not_finite(workdir: Path, flags: tuple[str, ...], rng: random.Random) -> Happened:
    """A rate that blows up the images ends in one line; nothing that is not finite was written.

    The loss of KIP is NaN. The features of FRePo die, and with them its gradient, so that its loss
    and its images stay finite: the kernel tells, at the evaluation of step 7.
    """
    wrong = workdir.with_name("wrong")
    rate = ("--config.optimizer.name=sgd", f"--config.optimizer.learning_rate={10.0**30}")
    ((code, _, errors),) = jobs.finish(jobs.start(wrong, *flags, *rate, **shape(1)), PATIENCE)
    line = only_error(code, errors)
    by_kernel = "--config.algorithm=frepo" in flags
    told = "the kernel of the support holds NaN" if by_kernel else "the loss is not finite"
    assert told in line, line
    jobs.check_whole(wrong)
    assert sorted(jobs.steps_saved(wrong)) == ([0, 5, 7] if by_kernel else [0])
    return kill_the_only(workdir, flags, rng)


def two_at_once(workdir: Path, flags: tuple[str, ...], rng: random.Random) -> Happened:
    """A second run in the folder is refused, and the first killed: the lock goes with it."""
    first = jobs.start(workdir, *flags, **shape(1))
    wait_for_step(workdir, first, 0)
    first[0].send_signal(signal.SIGSTOP)  # It holds the lock and does not come to its end.
    ((code, _, errors),) = jobs.finish(jobs.start(workdir, *flags, **shape(1)), PATIENCE)
    line = only_error(code, errors)
    assert f"in use by another run (process {first[0].pid} on" in line, line
    first[0].kill()
    ((_, output, _),) = jobs.finish(first, PATIENCE)
    return Happened("second run refused", last_step(output))


KINDS = {
    "kill one of two": Kind(kill_one_of_two, processes=2),
    "full disk": Kind(full_disk, mounts=True),
    "kill all of two": Kind(kill_all, processes=2),
    "truncated checkpoint": Kind(truncated_checkpoint),
    "SIGTERM to one of two": Kind(terminate_one_of_two, processes=2),
    "read-only disk": Kind(read_only_disk, mounts=True),
    "kill": Kind(kill_the_only),
    "two runs at once": Kind(two_at_once),
    "not finite": Kind(not_finite),
}


def wait_a_random_time(workdir: Path, running: list[Popen[str]], rng: random.Random) -> str:
    """Now and then within the start, else some time after a random checkpoint: when, in words."""
    if rng.random() < 0.2:
        seconds = rng.uniform(0, 10)
        time.sleep(seconds)
        return f"{seconds:.1f} s after the start"
    step = rng.choice(range(0, 90, 5))
    wait_for_step(workdir, running, step)
    time.sleep(rng.uniform(0, 0.2))
    return f"after step {step}"


def wait_for_step(workdir: Path, running: list[Popen[str]], step: int) -> None:
    """Waits until a checkpoint of `step` or later is there, or a process has ended."""
    end = time.monotonic() + PATIENCE
    while max(jobs.steps_saved(workdir), default=-1) < step:
        if any(job.poll() is not None for job in running):
            return
        assert time.monotonic() < end, f"no checkpoint of step {step} in {PATIENCE} s"
        time.sleep(0.01)


def only_error(code: int, errors: str, strict: bool = True) -> str:
    """The line of a UserError on stderr; `strict`: nothing else stands there."""
    lines = errors.strip().splitlines()
    assert code == 2, f"exit code {code}: {errors[-2000:]}"
    assert lines[-1].startswith("error: "), errors[-2000:]
    assert not strict or len(lines) == 1, errors[-2000:]
    return lines[-1]


def last_step(output: str) -> int:
    """The last step that a run reported; 0 if none."""
    steps = [line.split()[1] for line in output.splitlines() if line.startswith("step ")]
    return max((int(step.split("/")[0].rstrip(":")) for step in steps), default=0)


def finished(output: str) -> bool:
    """Whether the run came to its end before the fault."""
    return "finished in" in output
