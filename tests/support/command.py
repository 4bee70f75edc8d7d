"""The command line as a person meets it, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIGITS = "--config=configs/kip_digits.py"
QUICK = (
    *("--config.kernel.architecture=fc", "--config.kernel.depth=1", "--config.num_steps=3"),
    *("--config.batch_size=30", "--config.eval.steps=(0,)", "--config.mesh.cpu_devices=1"),
    "--config.report.num_train=0",  # No analysis, which is long to compile.
)


def linked(folder):
    """`folder` with the files that commands name, as in a copy of the repository."""
    for name in ("main.py", "configs", "kip_flax"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def python(folder, *arguments):
    """Python in `folder`, with the environment of the test."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def run(*arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "TF_"))}
    return subprocess.run(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
