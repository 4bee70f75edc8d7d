"""Jobs of one or several processes on the digits, and what they leave, for tests of faults."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
DIGITS = (
    *("--config=configs/kip_digits.py", "--config.kernel.architecture=fc"),
    *("--config.kernel.depth=1", "--config.batch_size=30"),
)


def start(
    workdir: Path, *flags: str, processes: int = 1, devices: int = 1, first: tuple[str, ...] = ()
) -> list[subprocess.Popen[str]]:
    """The job, in the background: one `Popen` per process, stdout and stderr piped.

    Args:
        workdir: of the job.
        flags: further ones of `main.py`.
        processes: how many.
        devices: CPU devices of each.
        first: what the command begins with, such as a wrapper.
    """
    common = [*DIGITS, f"--workdir={workdir}", f"--config.mesh.cpu_devices={devices}", *flags]
    address = f"--coordinator_address=localhost:{_free_port()}"
    jobs = []
    for number in range(processes):
        member = [address, f"--num_processes={processes}", f"--process_id={number}"]
        command = [*first, sys.executable, "main.py", *common, *(member if processes > 1 else [])]
        jobs.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "TF_"))},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return jobs


@contextlib.contextmanager
def running(workdir: Path, *flags: str, **options: Any) -> Iterator[list[subprocess.Popen[str]]]:
    """`start`; what is still there in the end is killed."""
    jobs = start(workdir, *flags, **options)
    try:
        yield jobs
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


def finish(jobs: list[subprocess.Popen[str]], seconds: float) -> list[tuple[int, str, str]]:
    """Waits for the end of all: exit code, stdout, stderr of each.

    Raises:
        subprocess.TimeoutExpired: one is still there after so many seconds; all are killed.
    """
    try:
        outputs = [job.communicate(timeout=seconds) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    return [(job.returncode, *texts) for job, texts in zip(jobs, outputs, strict=True)]


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint and of all distilled sets, by name."""
    found = {}
    newest = max(steps_saved(workdir))
    path = workdir.absolute() / "checkpoints" / str(newest) / "state"
    with ocp.StandardCheckpointer() as reader:
        saved = reader.metadata(path).item_metadata.tree
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
        state = reader.restore(path, empty)
    for name, leaf in jax.tree_util.tree_leaves_with_path(state):
        found[f"checkpoint {newest}{jax.tree_util.keystr(name)}"] = np.asarray(leaf)
    for file in sorted((workdir / "distilled").glob("*.npz")):
        with np.load(file) as content:
            found |= {f"{file.name} {name}": content[name] for name in content.files}
    return found


def steps_saved(workdir: Path) -> list[int]:
    """Steps of the checkpoints that are whole."""
    return [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()]


def check_whole(workdir: Path) -> None:
    """AssertionError unless every artefact that has its name is whole, and finite."""
    for file in workdir.glob("*.json"):
        json.loads(file.read_text())
    for file in workdir.glob("**/*.npz"):
        with np.load(file) as content:
            for name in content.files:
                array = content[name]
                assert array.dtype.kind != "f" or np.isfinite(array).all(), f"{file.name} {name}"
    for file in workdir.glob("*.png"):
        Image.open(file).load()
    for file in workdir.glob("distilled/index.csv"):
        *rows, end = file.read_text().split("\n")
        assert end == "", file
        assert {row.count(",") for row in rows} == {10}, file


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
