"""The command that pip installs is `python main.py` under another name."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from command import DIGITS, ROOT, run

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SCRIPTS = PYPROJECT["project"]["scripts"]
SET = "results/kip_digits_10/ConvNetPre2_ssize10_nozca_l_noaug_ckpt60.npz"


@pytest.fixture
def installed(tmp_path):
    """A call of the script, as pip writes it; of the repository it sees the package alone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "kip_flax").symlink_to(ROOT / "kip_flax")
    module, function = SCRIPTS["kip_flax"].split(":")
    script = tmp_path / "bin" / "kip_flax"
    script.parent.mkdir()
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")

    def call(*arguments, folder=ROOT):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "TF_"))}
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_the_entry_point_is_a_function():
    point = EntryPoint("kip_flax", SCRIPTS["kip_flax"], "console_scripts")
    assert callable(point.load())
    assert list(SCRIPTS) == ["kip_flax"]


@pytest.mark.parametrize(
    "arguments",
    [(), (DIGITS,), (DIGITS, "--config.kernel.dept=3"), (DIGITS, "--mode=fly")],
)
def test_a_mistake_reads_as_that_of_main(installed, arguments):
    """With a configuration that imports another: it lies in the working folder."""
    done, other = installed(*arguments), run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == other.stderr.replace("python main.py --help", "kip_flax --help")


@pytest.mark.parametrize("separate", [False, True])
def test_a_configuration_may_lie_in_another_folder(installed, tmp_path, separate):
    """It imports `configs.default`; the mistake in a field is found after that."""
    path = str(ROOT / "configs" / "kip_digits.py")
    named = ("--config", path) if separate else (f"--config={path}",)
    done = installed(*named, "--workdir=run", "--config.kernel.depth=-1", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: convnet needs a depth of at least 1, not -1: set kernel.depth.\n"


def test_help_lists_the_same_flags(installed):
    done, other = installed("--help"), run("--help")
    assert done.stdout.partition("\n")[0] == other.stdout.partition("\n")[0]
    flags = [line for line in done.stdout.splitlines() if line.startswith("  --")]
    assert flags == [line for line in other.stdout.splitlines() if line.startswith("  --")]
    assert len(flags) >= 12


def test_it_exports_a_set(installed, tmp_path):
    out = tmp_path / "out"
    done = installed("--mode=export", f"--distilled={SET}", f"--workdir={out}")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(out / "README.md").read_text(encoding="utf-8").startswith("---\n")


def test_pip_installs_every_file_of_the_package():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]
    installed = {
        path
        for package, globs in patterns.items()
        for pattern in globs
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    files = {path for path in (ROOT / "kip_flax").rglob("*") if path.is_file()}
    others = {path for path in files if path.suffix not in (".py", ".pyc")}
    assert len(others) > 20
    assert others - installed == set()
