"""Kills a running job at random moments, resumes it, and compares with one that never was killed.

Each round starts the digits job, sends SIGKILL after a random time, again and again, until a start
comes to its end. The state in the last checkpoint and all distilled sets must then equal, bit for
bit, those of an undisturbed run.

Run: python tests/kills.py --rounds=20
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).resolve().parent.parent
JOB = (
    *("--config=configs/kip_digits.py", "--config.kernel.architecture=fc"),
    *(
        "--config.kernel.depth=1",
        "--config.num_steps=400",
        "--config.eval.steps=(0,7,50,100,200,300)",
    ),
    *("--config.checkpoint.every_steps=5", "--config.augment=shift", "--config.log.every_steps=5"),
)


def main() -> None:
    """Exit code 1 if any round differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        undisturbed = Path(folder, "undisturbed")
        start(undisturbed).communicate()
        seconds = time.monotonic() - began
        expected = arrays(undisturbed)
        print(f"undisturbed: {seconds:.1f} s, {len(expected)} arrays", flush=True)
        bad = 0
        for number in range(1, options.rounds + 1):
            workdir = Path(folder, f"round{number}")
            kills, steps = killed_until_done(workdir, seconds, rng)
            differing = differences(expected, arrays(workdir))
            bad += bool(differing)
            verdict = f"DIFFERS in {', '.join(differing)}" if differing else "bit-identical"
            print(f"round {number}: {kills} kills (resumed at {steps}): {verdict}", flush=True)
    print(f"{options.rounds - bad} of {options.rounds} rounds bit-identical")
    sys.exit(bad > 0)


def start(workdir: Path) -> subprocess.Popen[str]:
    """The job, in the background."""
    command = [sys.executable, "main.py", *JOB, f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=None, text=True)


def killed_until_done(workdir: Path, seconds: float, rng: random.Random) -> tuple[int, list[int]]:
    """Kills and restarts the job until it ends by itself: number of kills, steps resumed at.

    At least one kill falls within the time of a whole run. Later ones are allowed more and more
    time, so that a job that spends its time on starting ends nevertheless.
    """
    kills, steps = 0, []
    while True:
        job = start(workdir)
        try:
            # Most of a run's time goes into starting: prefer its second half.
            low = 0.4 if kills % 3 else 0.0
            out, _ = job.communicate(timeout=seconds * rng.uniform(low, 1.0 + 0.1 * kills))
        except subprocess.TimeoutExpired:
            job.kill()
            out, _ = job.communicate()
            kills += 1
            done = False
        else:
            if job.returncode:
                raise SystemExit(f"the job ended with exit code {job.returncode}:\n{out}")
            done = kills > 0
            if not kills:  # It was too quick for this round: once more, from nothing.
                shutil.rmtree(workdir)
        for line in out.splitlines():
            if line.startswith("going on from"):
                steps.append(int(line.split()[-1]))
        if done:
            return kills, steps


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint and of all distilled sets, by name."""
    found = {}
    newest = max(int(name) for name in os.listdir(workdir / "checkpoints") if name.isdigit())
    with ocp.StandardCheckpointer() as reader:
        state = reader.restore(workdir / "checkpoints" / str(newest) / "state")
    for name, leaf in flatten(f"checkpoint {newest}", state):
        found[name] = np.asarray(leaf)
    for path in sorted((workdir / "distilled").glob("*.npz")):
        with np.load(path) as content:
            found |= {f"{path.name} {name}": content[name] for name in content.files}
    return found


def flatten(name: str, tree: object) -> list[tuple[str, object]]:
    """(name, leaf) of nested dicts and lists."""
    if isinstance(tree, dict):
        return [pair for key in tree for pair in flatten(f"{name}/{key}", tree[key])]
    if isinstance(tree, list | tuple):
        return [pair for i, part in enumerate(tree) for pair in flatten(f"{name}/{i}", part)]
    return [] if tree is None else [(name, tree)]


def differences(expected: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> list[str]:
    """Names of arrays that are missing on one side or differ in any bit."""
    return sorted(
        name
        for name in expected.keys() | got.keys()
        if name not in expected
        or name not in got
        or expected[name].dtype != got[name].dtype
        or expected[name].shape != got[name].shape
        or expected[name].tobytes() != got[name].tobytes()
    )


if __name__ == "__main__":
    main()
