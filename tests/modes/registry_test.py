"""The modes: each says itself what it needs; one of one's own is a file."""

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest
from command import DIGITS, ROOT, run

from kip_flax import modes
from kip_flax.runtime.errors import UserError

FOREIGN = '''
"""Counts the training images of each class; trains nothing."""

import json
import os

import numpy as np

from kip_flax.modes import Command, Mode
from kip_flax.runs import setup


def count(command: Command) -> None:
    dataset = setup.load(command.config)
    counts = np.bincount(dataset.train_labels, minlength=dataset.num_classes).tolist()
    with open(os.path.join(command.workdir, "counts.json"), "w", encoding="utf-8") as file:
        json.dump(counts, file)
    command.console.outcome(f"{sum(counts)} images of {len(counts)} classes")


MODE = Mode("counting", needs=("workdir",), run=count)
'''


def test_every_package_is_a_mode_under_its_own_name():
    found = [modes.find(name).name for name in modes.NAMES]
    assert found == list(modes.NAMES)
    packages = [module.name for module in pkgutil.iter_modules(modes.__path__) if module.ispkg]
    described = {importlib.import_module(f"kip_flax.modes.{name}").MODE.name for name in packages}
    assert described == set(modes.NAMES)


def test_descriptions_load_neither_jax_nor_data():
    code = (
        "import sys; from kip_flax import modes; [modes.find(name) for name in modes.NAMES]; "
        "sys.exit(', '.join({'jax', 'flax', 'matplotlib', 'PIL'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


INTERRUPTED = '''
"""Computes for hours, until a signal that it sends to itself."""

import os
import signal
import time

from kip_flax.modes import Command, Mode
from kip_flax.runtime import signals
from kip_flax.runtime.waiting import Watch


def compute() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3600)


def run(command: Command) -> None:
    with signals.stop_signals() as stopping:
        Watch(stopping, command.console).wait("computing", compute)


MODE = Mode("interrupted", needs=(), run=run)
'''
PRESSED = '''
"""Is stopped by Ctrl-C where nothing waits for it."""

from kip_flax.modes import Command, Mode


def run(command: Command) -> None:
    raise KeyboardInterrupt


MODE = Mode("pressed", needs=(), run=run)
'''


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    (tmp_path / "my_modes").mkdir()
    (tmp_path / "my_modes" / "counting.py").write_text(FOREIGN)
    (tmp_path / "my_modes" / "interrupted.py").write_text(INTERRUPTED)
    (tmp_path / "my_modes" / "pressed.py").write_text(PRESSED)
    (tmp_path / "my_modes" / "empty.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_mode_of_ones_own_is_one_file(foreign):
    counting = (DIGITS, "--mode=my_modes.counting")
    without = run(*counting)
    assert (without.returncode, without.stdout) == (2, "")
    assert without.stderr == "error: --mode=my_modes.counting needs --workdir=PATH.\n"
    done = run(*counting, f"--workdir={foreign}", "--config.dataset.test_fraction=0.2")
    assert (done.returncode, done.stderr) == (0, "")
    counts = json.loads((foreign / "counts.json").read_text())
    assert done.stdout == f"{sum(counts)} images of 10 classes\n"
    assert sum(counts) == 1438  # Of 1,797; a fifth of each class is for testing.
    several = run(*counting, f"--workdir={foreign}", "--num_processes=2")
    assert "--mode=my_modes.counting runs in one process" in several.stderr


def test_a_signal_that_no_mode_answers_ends_the_command_with_a_line(foreign):
    """So ends a plan whose networks are being timed."""
    done = run(DIGITS, "--mode=my_modes.interrupted")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "stopped: there was nothing to save yet"


def test_ctrl_c_without_saving_is_one_line(foreign):
    done = run(DIGITS, "--mode=my_modes.pressed")
    assert (done.returncode, done.stderr) == (130, "stopped without saving\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--distilled=a.npz", "--workdir=runs/a"),
            "--mode=train does not read --distilled: leave it out, or take --mode=evaluate or "
            "transfer or predict or export or import.",
        ),
        (
            ("--mode=evaluate", "--distilled=a.npz", "--compare=runs/a"),
            "--mode=evaluate does not read --compare: leave it out, or take --mode=compare.",
        ),
        (
            ("--mode=compare", "--compare=runs/a,", "--workdir=runs/b"),
            "--compare=runs/a, has an empty entry",
        ),
    ],
)
def test_flags_without_an_effect_are_refused(arguments, message):
    done = run(DIGITS, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {message}")


def test_a_tilde_is_the_home_in_all_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    done = run(DIGITS, "--mode=evaluate", "--distilled=~/none.npz")
    assert (
        done.stderr == f"error: {tmp_path}/none.npz does not exist: name an .npz file that does.\n"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fly",
            "unknown mode 'fly': --mode is one of train, evaluate, transfer, predict, plan, ",
        ),
        ("my_modes.none", "mode is 'my_modes.none': take one of train, .* by its dotted name"),
        ("my_modes.empty", "--mode=my_modes.empty: the module has no MODE"),
    ],
)
def test_a_name_without_a_mode_is_reported(foreign, name, message):
    with pytest.raises(UserError, match=message):
        modes.find(name)
