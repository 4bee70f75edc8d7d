"""The commands that make rows of results, and train networks on their sets."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from configs import kip_digits
from kip_flax.modes.evaluate import mode as evaluate_mode
from kip_flax.runtime.errors import UserError
from results import card, networks, record, run_all, table
from results.experiment import Experiment, command
from results.experiments import EXPERIMENTS

RESULTS = Path(table.__file__).parent

TINY = Experiment(
    "tiny",
    "kip_digits",
    {
        "dataset.validation": 0.2,
        "kernel.architecture": "fc",
        "kernel.depth": 1,
        "kernel.implementation": "xla",
        "num_steps": 400,
        "eval.steps": (0, 5, 400),
        "checkpoint.every_steps": 5,
        "report.num_train": 0,
    },
    seeds=(3,),
)


@pytest.mark.slow
def test_a_runner_that_is_stopped_goes_on_and_does_nothing_twice(tmp_path, monkeypatch):
    results, runs = tmp_path / "kept", tmp_path / "runs"
    for module in (run_all, table):
        monkeypatch.setattr(module, "EXPERIMENTS", (TINY,))
    arguments = [f"--runs={runs}", f"--results={results}"]
    began = []
    wait = subprocess.Popen.wait

    def interrupted(child, *args, **kwargs):
        """The first program gets a signal when it has left its first set, and so does this one."""
        if "main.py" not in child.args:  # git, which says the commit.
            return wait(child, *args, **kwargs)
        began.append(child.args)
        if len(began) == 1:
            while not list(runs.glob("tiny/seed3/distilled/*_ckpt5.npz")):
                assert child.poll() is None
                time.sleep(0.05)
            raise KeyboardInterrupt
        return wait(child, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(SystemExit, match="goes on from there"):
        run_all.main(arguments)
    assert record.is_stopped(runs / "tiny" / "seed3")
    assert not record.is_done(TINY, results)
    run_all.main(arguments)
    figures = record.read(results / "tiny")
    (draw,) = figures["draws"]
    assert draw["seed"] == figures["config"]["seed"] == 3
    watched = draw["watched"]
    assert watched["on"] == "validation"
    best = min(watched["evaluations"], key=lambda row: row["mse"])
    assert draw["step"] == best["step"]
    assert figures["set"].endswith(f"_ckpt{best['step']}.npz")
    assert draw["cpu_seconds"] > 1
    # The test figures are those of the file on the test images.
    config = kip_digits.get_config()
    config.kernel.architecture, config.kernel.depth = "fc", 1
    measured = evaluate_mode.evaluate_file(config, str(results / "tiny" / figures["set"]))
    assert draw["final"]["accuracy"] == pytest.approx(measured["accuracy"], abs=1e-6)
    assert "| Digits 8x8 | [KIP, fc](tiny/) | 10 |" in (results / "README.md").read_text()
    assert (results / "tiny" / card.CARD).read_text() == card.render(TINY, results / "tiny")
    assert (results / "tiny" / record.CURVE).exists()
    done = len(began)
    run_all.main(arguments)
    assert len(began) == done


def test_a_whole_row_is_made_from_the_sets_of_its_own_start(tmp_path, monkeypatch):
    """The rows before it come first, and the sets of this repository are not read."""
    results, made = tmp_path / "again", []

    def run(experiment, data_dir, runs, results, recorded=None):
        made.append((experiment.name, experiment.fields.get("support.init", "real")))
        if recorded is not None:
            own = experiment.fields["support.init"].replace(str(results), "results")
            assert recorded.fields == experiment.fields | {"support.init": own}
        (results / experiment.name).mkdir(parents=True)
        draws = [{"seed": seed} for seed in experiment.seeds]
        content = {"set": f"{experiment.name}.npz", "draws": draws}
        (results / experiment.name / record.FIGURES).write_text(json.dumps(content))

    monkeypatch.setattr(run_all, "run", run)
    monkeypatch.setattr(table, "write", lambda folder: None)
    names = [f"kip_newton_cifar10_100{suffix}" for suffix in ("", "_further", "_furthest")]
    arguments = [f"--runs={tmp_path}", f"--results={results}", "--whole"]
    run_all.main([*arguments, f"--only={names[1]}"])
    sets = [str(results / name / f"{name}.npz") for name in names]
    assert made == [(names[0], "real"), (names[1], sets[0])]
    run_all.main([*arguments, f"--only={names[2]},{names[0]}"])
    assert made[2:] == [(names[2], sets[1])]
    shutil.rmtree(results / names[0])
    run_all.main([*arguments, f"--only={names[2]}"])
    assert len(made) == 3  # What is there needs no start.


def test_folders_of_a_row_may_have_a_space_or_begin_at_home(tmp_path, monkeypatch):
    (experiment,) = (e for e in EXPERIMENTS if e.name == "kip_newton_mnist_10_relabelled")
    line = command(experiment.from_set(Path("/my work/a, b.npz")), 0)
    assert "--config.support.init=/my work/a, b.npz" in line
    monkeypatch.setenv("HOME", str(tmp_path))
    worked = []
    args = run_all.make_parser("A command.", "~/runs").parse_args(["--results=~/again"])
    run_all.go_through([lambda *given: worked.append(given)], args, [TINY])
    assert worked == [(TINY, "", tmp_path / "runs" / "tiny", tmp_path / "again")]


def test_what_the_runner_cannot_do_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="no experiment 'kip': --only takes kip_digits_10"):
        run_all.main(["--only=kip", f"--runs={tmp_path}"])


def kept_without_networks(name, kept):
    """Copies a row to the folder `kept`, without the figures of networks; returns its figures."""
    shutil.copytree(RESULTS / name, kept / name)
    figures = record.read(kept / name)
    figures.pop("network", None)
    (kept / name / record.FIGURES).write_text(json.dumps(figures))
    return figures


@pytest.mark.slow
def test_networks_are_measured_once_and_written(tmp_path, monkeypatch):
    name = "kip_digits_10"
    (experiment,) = (e for e in EXPERIMENTS if e.name == name)
    figures = kept_without_networks(name, tmp_path / "kept")
    for module in (run_all, table):
        monkeypatch.setattr(module, "EXPERIMENTS", (experiment,))
    small = {"transfer.seeds": 2, "transfer.width": 4, "transfer.num_steps": 3}
    monkeypatch.setattr(networks, "FIELDS", networks.FIELDS | small)
    programs = []
    program = run_all.program
    monkeypatch.setattr(run_all, "program", lambda *a: (programs.append(a), program(*a)))
    arguments = [f"--runs={tmp_path / 'runs'}", f"--results={tmp_path / 'kept'}"]
    networks.main(arguments)
    after = record.read(tmp_path / "kept" / name)
    rows = after.pop("network")
    assert after == figures
    for row, folder in zip(rows, ("convnet_plain_3", "convnet_in"), strict=True):
        path = tmp_path / "runs" / name / folder / "transfer.json"
        (other,) = json.loads(path.read_text())["rows"]
        assert row["network"] == other["network"]
        assert row["accuracies"] == other["accuracies"]
        assert (row["on"], row["seeds"]) == ("test", 2)
        assert row["recipe"].startswith("auto: 3 steps of at most 500 images, mse on soft")
    assert [row["width"] for row in rows] == [128, None]
    text = (tmp_path / "kept" / "README.md").read_text()
    cells = [f"{100 * row['mean']:.2f} ± {100 * row['std']:.2f}" for row in rows]
    assert f"| 93.87 | - | {cells[0]} (2) | {cells[1]} (2) | 60 |" in text
    assert cells[0] in (tmp_path / "kept" / name / card.CARD).read_text()
    networks.main(arguments)
    assert len(programs) == 2


@pytest.mark.parametrize(("name", "seeds"), [("ls_cifar10_100", 5), ("ls_cifar10_500", 2)])
def test_fewer_networks_learn_from_hundreds_of_images(name, seeds, tmp_path, monkeypatch):
    (experiment,) = (e for e in EXPERIMENTS if e.name == name)
    kept_without_networks(name, tmp_path / "kept")
    programs = []
    monkeypatch.setattr(run_all, "program", lambda arguments, _: programs.append(arguments))
    with pytest.raises(KeyboardInterrupt):  # There is no table, as if a signal had come.
        networks.measure("convnet_in", experiment, "", tmp_path / "runs", tmp_path / "kept")
    (arguments,) = programs
    assert f"--config.transfer.seeds={seeds}" in arguments


def test_a_row_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    written, worked = [], []
    monkeypatch.setattr(table, "write", written.append)

    def work(experiment, data_dir, runs, results):
        worked.append(experiment.name)
        if experiment.name == "first":
            raise UserError("the training diverged")
        return True

    rows = [Experiment(name, "kip_digits") for name in ("first", "second")]
    args = run_all.make_parser("Works.", "").parse_args([f"--runs={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        run_all.go_through([work], args, rows)
    assert worked == ["first", "second"]
    assert written == [args.results]
    assert ended.value.code not in (None, 0)
    assert "1 of 2 rows failed" in str(ended.value.code)
    assert "error: first: the training diverged\n" in capsys.readouterr().err


def test_a_row_whose_start_failed_is_named(tmp_path, capsys):
    (row,) = (e for e in EXPERIMENTS if e.name == "kip_newton_mnist_100_further")
    args = run_all.make_parser("Works.", "").parse_args(
        [f"--runs={tmp_path / 'runs'}", f"--results={tmp_path}"]
    )
    with pytest.raises(SystemExit):
        run_all.go_through([run_all._run_from_kept], args, [row])
    line = "error: kip_newton_mnist_100_further: it goes on from kip_newton_mnist_100, which is not"
    assert line in capsys.readouterr().err


def test_a_second_signal_does_not_lose_the_time_of_a_run(monkeypatch):
    """It comes while the run saves: the runner waits on."""
    codes, waits = iter([None, None, 0]), iter([KeyboardInterrupt, None])

    class Child:
        def poll(self):
            return next(codes)

        def wait(self):
            if (interrupt := next(waits)) is not None:
                raise interrupt

    run_all._wait_for(Child())
    assert list(waits) == []


def test_a_seed_among_the_fields_is_refused():
    with pytest.raises(ValueError, match="pass the seed as one of `seeds`"):
        Experiment("row", "kip_digits", {"seed": 1})
