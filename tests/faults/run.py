"""Faults in a loop: every round breaks a run of the digits, mends the cause, and resumes it.

After each fault: no file of the run is half written, and the run goes on from the newest checkpoint
that was whole. In the end the state and all distilled sets equal, bit for bit, those of a run that
nothing happened to. Full and read-only disks need the right to mount a tmpfs; without it those
rounds are left out, and the report says so.

Run: python tests/faults/run.py --rounds=100
"""

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import disks
import jobs
import kinds
from absl import logging

STEPS, EVERY = 120, 5
FLAGS = (
    *(f"--config.num_steps={STEPS}", f"--config.checkpoint.every_steps={EVERY}"),
    *("--config.eval.steps=(0,7,50)", "--config.augment=shift", "--config.log.every_steps=5"),
)
# What makes a run of KIP one of another algorithm.
ALGORITHMS = {
    "kip": (),
    "frepo": (
        *("--config.algorithm=frepo", "--config.frepo.network=fc:1", "--config.frepo.width=8"),
        *("--config.frepo.pool=3", "--config.frepo.life=7", "--config.frepo.flip=False"),
        "--config.optimizer.name=lamb",
    ),
}


def main() -> None:
    """Exit code 1 if any round differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--only", choices=sorted(kinds.KINDS), help="one kind of fault")
    parser.add_argument("--algorithm", choices=sorted(ALGORITHMS), default="kip")
    options = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="faults_") as name:
        sys.exit(loop(Path(name), options))


def loop(folder: Path, options: argparse.Namespace) -> int:
    """Runs the rounds; 1 if one failed."""
    rng = random.Random(options.seed)
    flags = (*FLAGS, *ALGORITHMS[options.algorithm])
    chosen = [options.only] if options.only else list(kinds.KINDS)
    if not disks.can_mount():
        print("no right to mount: rounds with full and read-only disks are left out", flush=True)
        chosen = [kind for kind in chosen if not kinds.KINDS[kind].mounts]
    expected = {}
    for processes in sorted({kinds.KINDS[kind].processes for kind in chosen}):
        expected[processes] = undisturbed(folder / f"whole{processes}", processes, flags)
    end = time.monotonic() + 60 * options.minutes
    passed, failed = 0, []
    for number, kind in zip(range(1, options.rounds + 1), itertools.cycle(chosen), strict=False):
        if time.monotonic() > end:
            break
        begin = time.monotonic()
        try:
            outcome = one_round(folder / f"round{number}", kind, expected, rng, flags)
            passed += 1
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failed.append(f"{number} ({kind})")
            outcome = f"FAILED: {error}"
        print(f"round {number}, {kind}: {outcome}; {time.monotonic() - begin:.0f} s", flush=True)
    print(f"{passed} of {passed + len(failed)} rounds without loss {' '.join(failed)}".strip())
    return int(bool(failed))


def undisturbed(workdir: Path, processes: int, flags: tuple[str, ...]) -> dict:
    """The arrays of a run that nothing happens to."""
    begin = time.monotonic()
    ends = jobs.finish(jobs.start(workdir, *flags, **kinds.shape(processes)), 900)
    assert all(code == 0 for code, _, _ in ends), ends
    print(f"undisturbed, {processes} processes: {time.monotonic() - begin:.0f} s", flush=True)
    return jobs.arrays(workdir)


def one_round(
    folder: Path, name: str, expected: dict, rng: random.Random, flags: tuple[str, ...]
) -> str:
    """Breaks, checks, resumes, compares: what happened, in words."""
    kind = kinds.KINDS[name]
    with disks.room(folder, mounted=kind.mounts) as place:
        workdir = place / "run"
        happened = kind.fault(workdir, flags, rng)
        jobs.check_whole(workdir)
        saved = jobs.steps_saved(workdir)
        resume = max(saved, default=None) if happened.lost is None else happened.lost
        ends = jobs.finish(jobs.start(workdir, *flags, **kinds.shape(kind.processes)), 900)
        assert all(code == 0 for code, _, _ in ends), ends
        began = resumed_at(ends[0][1])
        assert began == resume, f"resumed at {began}, newest whole checkpoint {resume} of {saved}"
        late = happened.step - (began or 0)
        assert late <= 2 * EVERY + happened.slack, f"reported {happened.step}, resumed at {began}"
        jobs.check_whole(workdir)
        differing = jobs.differences(expected[kind.processes], jobs.arrays(workdir))
        assert not differing, f"differs in {', '.join(differing)}"
    return f"{happened.words}, resumed at {began}, bit-identical"


def resumed_at(output: str) -> int | None:
    """The step that a run says it goes on from; None for a new one."""
    lines = output.splitlines()
    if begun := [line for line in lines if line.startswith("going on from")]:
        return int(begun[0].split()[-1])
    finished = [line for line in lines if line.startswith("finished at step ")]
    return int(finished[0].split()[3].rstrip(":")) if finished else None


if __name__ == "__main__":
    main()
