"""The command line as a person meets it: one line for a mistake, code 2, no traceback."""

import json
import re
import subprocess
import sys
import types

import pytest
from command import DIGITS, QUICK, ROOT, run

from kip_flax.modes import command_line
from kip_flax.runtime import multihost, sharding
from kip_flax.runtime.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no experiment: name one, for example --config=configs/kip_digits.py"),
        (("--config=configs/none.py",), "there is no file configs/none.py"),
        (("--config=configs/none.py", "--config.seed=1"), "configs/none.py"),
        (
            (DIGITS, "--config.kernel.dept=3"),
            """the configuration has no field 'dept'. Did you mean "depth" instead of "dept"?""",
        ),
        ((DIGITS, "--config.zzz=3"), "error: the configuration has no field 'zzz' (see "),
        (
            ("--config=configs/dsa_mnist.py:7", "--workdir=x"),
            "dsa_mnist.py:7: 7 images per class have no published loops: write one of 1, 10, 20",
        ),
        ((DIGITS, "--config.num_steps=many"), "--config.num_steps=many: invalid literal"),
        ((DIGITS, "--workdri=x"), "Unknown command line flag 'workdri'. Did you mean: workdir"),
        (
            (DIGITS, "--mode=fly"),
            "unknown mode 'fly': --mode is one of train, evaluate, transfer, predict, plan",
        ),
        ((DIGITS, "train"), "unknown argument 'train'"),
        ((DIGITS,), "--mode=train needs --workdir=PATH"),
        (("--mode=report", "--workdir=a", "--workdir", "b"), "--workdir is given 2 times: give it"),
        ((DIGITS, "--mode=evaluate"), "--mode=evaluate needs --distilled=PATH"),
        ((DIGITS, "--mode=transfer", "--distilled=x"), "--mode=transfer needs --workdir=PATH"),
        (("--mode=export", "--distilled=x"), "--mode=export needs --workdir=PATH"),
        (("--mode=export", "--distilled=x.npz", "--workdir=y"), "x.npz does not exist"),
        (("--mode=import", "--distilled=x", "--workdir=y"), "no experiment: name one"),
        ((DIGITS, "--mode=import", "--distilled=x", "--workdir=y"), "x does not exist"),
        ((DIGITS, "--workdir=x", "--config.algorithm=gan"), "algorithm is 'gan': take one of"),
        (
            (DIGITS, "--workdir=x", "--config.dataset.classes=([0], [1])"),
            "dataset.classes is ([0], [1]): take numbers or names of classes",
        ),
    ],
)
def test_a_mistake_is_one_line_and_code_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""


def test_a_platform_that_is_not_there_is_told_of(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")

    def none(cpu_devices):
        raise AssertionError

    monkeypatch.setattr(sharding, "configure_jax", none)
    monkeypatch.setattr(multihost, "start", lambda *_: None)
    alone = types.SimpleNamespace(coordinator_address=None, num_processes=None, process_id=None)
    monkeypatch.setattr(command_line, "FLAGS", alone)
    with pytest.raises(UserError, match="no device of JAX_PLATFORMS=cuda: install requirements-cu"):
        command_line._set_up_jax(0)
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(AssertionError):
        command_line._set_up_jax(0)


def test_train_and_transfer(tmp_path):
    workdir = tmp_path / "run"
    done = run(DIGITS, f"--workdir={workdir}", *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    for pattern in (
        r"kip_flax \d.* kip in ",
        r"kernel +fc, depth 1, ntk; \w+",
        r"devices +1 x \w+ \(.*\); mesh 1 x 1",
        r"steps +3, 400 pairs each",
        r"step 3/3  loss 0\.0\d+  .* ms/step  .* pairs/s  ETA \d+ s",
        r"step 3: test accuracy \d+\.\d\d%, mse 0\.0\d+",
        r"finished in \d+ s",
        r"distilled set +.*ckpt3.npz",
    ):
        assert re.search(pattern, done.stdout), (pattern, done.stdout)
    figures = json.loads((workdir / "result.json").read_text())
    assert "main.py --config=configs/kip_digits.py" in figures["command"]

    path = next((workdir / "distilled").glob("*ckpt3.npz"))
    accuracy = figures["evaluations"][-1]["accuracy"]
    little = (
        *("--config.transfer.width=8", "--config.transfer.num_steps=4"),
        *("--config.transfer.seeds=2", "--config.transfer.baselines=('initial',)"),
    )
    transfer = ("--mode=transfer", f"--distilled={path}", f"--workdir={tmp_path / 'transfer'}")
    moved = run(DIGITS, *transfer, *QUICK, *little)
    assert (moved.returncode, moved.stderr) == (0, "")
    assert re.search(rf"10 distilled +{100 * accuracy:.2f} +\d+\.\d\d ± ", moved.stdout)
    rows = json.loads((tmp_path / "transfer" / "transfer.json").read_text())["rows"]
    assert [row["network"] for row in rows] == ["krr", "krr", "kernel", "kernel"]


def test_export_and_import(tmp_path):
    theirs = ROOT / "tests" / "fixtures" / "res_digits_ConvNet_1ipc.pt"
    taken = run(DIGITS, "--mode=import", f"--distilled={theirs}", f"--workdir={tmp_path}", *QUICK)
    assert (taken.returncode, taken.stderr) == (0, "")
    (flags,) = re.findall(r"evaluate with +(.*)", taken.stdout)
    measured = run(DIGITS, *flags.split(), *QUICK)
    assert (measured.returncode, measured.stderr) == (0, "")
    assert re.search(r"on digits: test accuracy [4-9]\d\.\d\d%", measured.stdout)
    path = flags.split("--distilled=")[1].split()[0]
    given = run("--mode=export", f"--distilled={path}", f"--workdir={tmp_path / 'out'}")
    assert (given.returncode, given.stderr) == (0, "")
    assert "parquet" in given.stdout
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param((), id="as it is"),
        pytest.param(("--config.kernel.architecture=fc", "--config.kernel.depth=1"), id="fc"),
    ],
)
def test_the_main_job_goes_as_with_the_reference_kernel(tmp_path, changes):
    short = (
        *changes,
        "--config.num_steps=2",
        "--config.batch_size=40",
        "--config.eval.num_test=50",
        "--config.eval.steps=(0,)",
    )
    rows = {}
    for implementation in ("auto", "neural_tangents"):
        workdir = tmp_path / implementation
        chosen = f"--config.kernel.implementation={implementation}"
        done = run(DIGITS, f"--workdir={workdir}", chosen, *short)
        assert (done.returncode, done.stderr) == (0, "")
        rows[implementation] = json.loads((workdir / "result.json").read_text())["evaluations"]
    for ours, reference in zip(rows["auto"], rows["neural_tangents"], strict=True):
        assert ours["mse"] == pytest.approx(reference["mse"], rel=1e-4)
        assert ours["accuracy"] == reference["accuracy"]
    assert rows["auto"][-1]["mse"] < rows["auto"][0]["mse"]


def test_importing_the_package_loads_neither_tensorflow_nor_the_reference():
    code = (
        "import sys, kip_flax, kip_flax.modes.train.mode, kip_flax.algorithms.kip; "
        "sys.exit('tensorflow' in sys.modules or 'neural_tangents' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
