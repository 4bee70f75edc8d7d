"""Results: the table is fresh, the sets are what the figures say."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import default, kip_digits
from kip_flax import algorithms, data, export, preprocess
from kip_flax import config as config_lib
from kip_flax.modes.compare import published
from kip_flax.modes.evaluate import mode as evaluate_mode
from results import card, record, rows, table, words
from results.experiments import EXPERIMENTS

RESULTS = Path(table.__file__).parent
ROOT = RESULTS.parent
MEASURED = [e for e in EXPERIMENTS if record.is_done(e, RESULTS)]


def test_the_table_is_what_the_figures_make_it():
    assert (RESULTS / "README.md").read_text() == table.render(RESULTS)


def _config(experiment, fields):
    """The configuration of the row's file, with `fields`."""
    config = importlib.import_module(f"configs.{experiment.config}").get_config()
    config.update_from_flattened_dict(fields)
    return config


@pytest.mark.parametrize("experiment", MEASURED, ids=lambda e: e.name)
def test_a_card_is_what_figures_and_set_make_it(experiment):
    folder = RESULTS / experiment.name
    text = (folder / card.CARD).read_text()
    assert text == card.render(experiment, folder)
    lines = re.findall(r"^python main\.py .*", text, re.M)
    assert len(lines) == 2  # Measure again, make again.
    default_kernel = _config(experiment, {}).kernel.mirrored
    for arguments in map(shlex.split, lines):
        given = [a.partition("=")[2] for a in arguments if a.startswith("--config.kernel.mirrored")]
        used = given or [str(default_kernel)]
        assert used == [str(record.read(folder)["config"]["kernel"].get("mirrored", False))]
    draw = record.read(folder)["draws"][0]
    assert f"| This set | {100 * draw['final']['accuracy']:.2f} |" in text
    shown = {folder / name for name in re.findall(r"\]\(([^)]*\.png)\)", text)}
    assert shown == set(folder.glob("*.png"))
    assert (folder / record.CURVE in shown) is (len(draw["watched"]["evaluations"]) > 2)


@pytest.mark.parametrize("name", ["kip_digits_10", "kip_newton_mnist_100"])
def test_the_lines_of_a_card_load_the_set(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    (lines,) = re.findall(r"```python\n(.*?)```", (RESULTS / name / card.CARD).read_text(), re.S)
    found: dict = {}
    exec(lines, found)
    figures = record.read(RESULTS / name)
    kept = np.load(RESULTS / name / figures["set"])
    assert found["images"].shape[0] == len(found["labels"]) == figures["config"]["support"]["size"]
    pictures = kept["images"] * kept["preprocess/std"] + kept["preprocess/mean"]
    np.testing.assert_allclose(found["pictures"], pictures, atol=1e-5)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_every_experiment_is_a_valid_configuration(experiment):
    config = _config(experiment, experiment.fields)
    config_lib.validate(config)
    # What chooses must not be what tests.
    chooses_nothing = config.algorithm in ("ls", "ls_cross_entropy") or "digits" in experiment.name
    assert config.dataset.validation > 0 or chooses_nothing


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if e.name.endswith("_relabelled")])
def test_labels_are_made_for_the_kernel_of_the_images(experiment):
    (start,) = [e for e in EXPERIMENTS if f"{e.name}_relabelled" == experiment.name]
    kernels = [_config(row, row.fields).kernel.to_dict() for row in (start, experiment)]
    assert kernels[0] == kernels[1]


# Stopped by hand at the half; the experiment has what was run.
STOPPED = {"kip_newton_cifar10_100_furthest": {"num_steps": 24}}


@pytest.mark.parametrize("experiment", MEASURED, ids=lambda e: e.name)
def test_figures_are_those_of_the_fields_that_the_row_has_today(experiment):
    config = _config(experiment, experiment.fields)
    config.update_from_flattened_dict(STOPPED.get(experiment.name, {}))
    config.seed = experiment.seeds[0]
    measured = record.read(RESULTS / experiment.name)["config"]
    now, then = config_lib.flatten(config), config_lib.flatten(measured)
    watching = ("transfer.", "log.", "checkpoint.")  # They change no set.
    deciding = [name for name in then if name in now and not name.startswith(watching)]
    assert {"seed", "algorithm", "batch_size", "num_steps", "support.init"} < set(deciding)
    assert [(name, then[name]) for name in deciding if then[name] != now[name]] == []
    # Fields that the row does not say, too: it had the values of before they were there.
    assert config_lib.identity(measured) == config_lib.identity(config)


@pytest.mark.parametrize("experiment", MEASURED, ids=lambda e: e.name)
def test_a_set_has_the_form_that_its_figures_say(experiment):
    figures = record.read(RESULTS / experiment.name)
    distilled = export.load_distilled(RESULTS / experiment.name / figures["set"])
    assert len(distilled.images) == figures["config"]["support"]["size"]
    assert distilled.meta["provenance"]["dataset"] == figures["config"]["dataset"]["name"]
    assert (RESULTS / experiment.name / record.PICTURE).stat().st_size > 1000
    judged_by_networks = figures["config"]["eval"].get("networks")
    for draw in figures["draws"]:
        if judged_by_networks:
            means = {e["step"]: e["networks"][0]["mean"] for e in draw["watched"]["evaluations"]}
            assert means[draw["step"]] > means[0]
            if experiment.name != "frepo_mnist_10":  # The page says why.
                facts = algorithms.facts(figures["config"]["algorithm"])
                rows, on = draw["watched"]["evaluations"], "validation"
                assert record.chosen_evaluation(rows, on, facts)["step"] == draw["step"]
            continue
        if figures["config"]["algorithm"] == "bptt":  # For networks, from a set for networks.
            start = record.read(ROOT / Path(figures["config"]["support"]["init"]).parent)
            assert figures["network"][0]["mean"] > start["network"][0]["mean"]
            continue
        if figures["config"]["algorithm"] not in ("rfad", "ls_cross_entropy"):  # By cross-entropy.
            assert draw["final"]["mse"] < draw["initial"]["mse"]
        assert draw["final"]["accuracy"] > draw["initial"]["accuracy"]


def test_the_natural_images_of_the_figure_are_those_that_a_run_began_with(tmp_path):
    """Ridge regression on them gives the accuracy that the run had at its start."""
    shown = rows.three("kip_digits_10_fixed", "kip_digits_10")
    accuracies = [row.accuracy for row in shown]
    assert accuracies == sorted(accuracies)
    assert len(set(accuracies)) == 3
    dataset = data.load_dataset("digits")
    fitted = preprocess.fit("standard", dataset.train_images)
    pixels = np.rint(255 * shown[0].pictures).astype(np.uint8)
    path = tmp_path / "ConvNetPre2_ssize10_nozca_nol_noaug_ckpt0.npz"
    np.savez(path, images=preprocess.apply(fitted, pixels), labels=shown[0].labels)
    measured = evaluate_mode.evaluate_file(kip_digits.get_config(), str(path))["accuracy"]
    assert measured == pytest.approx(accuracies[0], abs=1e-6)


def evaluate(arguments: list[str], workdir: Path) -> float:
    subprocess.run([sys.executable, *arguments, f"--workdir={workdir}"], cwd=ROOT, check=True)
    return json.loads((workdir / "evaluation.json").read_text())["accuracy"]


def test_a_row_made_again_without_its_start_went_on_from_the_one_here(tmp_path):
    name = "kip_newton_mnist_10_relabelled"
    shutil.copytree(RESULTS / name, tmp_path / name)
    assert record.chain(tmp_path / name) == [RESULTS / "kip_newton_mnist_10", tmp_path / name]
    table.write(tmp_path)
    written, kept = (folder / name / card.CARD for folder in (tmp_path, RESULTS))
    assert written.read_text() == kept.read_text()


def test_a_row_that_goes_on_names_a_set_that_is_kept():
    for experiment in EXPERIMENTS:
        assert bool(experiment.start) is experiment.fields.get("support.init", "").endswith(".npz")
        if experiment.start and experiment in MEASURED:
            kept = record.read(RESULTS / experiment.start)["set"]
            assert experiment.fields["support.init"] == f"results/{experiment.start}/{kept}"
            assert record.chain(RESULTS / experiment.name)[-2].name == experiment.start


def test_a_row_measured_again_by_the_command_of_the_page(tmp_path):
    name = "kip_digits_10"
    (line,) = [x for x in table.render(RESULTS).splitlines() if f"results/{name}/" in x]
    accuracy = evaluate(shlex.split(line)[1:], tmp_path)
    final = record.read(RESULTS / name)["draws"][0]["final"]
    assert accuracy == pytest.approx(final["accuracy"], abs=0.003)


@pytest.mark.parametrize("name", [e.name for e in MEASURED if "digits" in e.name])
def test_a_row_of_the_digits_measured_again(name):
    figures = record.read(RESULTS / name)
    config = default.get_config()
    config.update(figures["config"])
    accuracy = evaluate_mode.evaluate_file(config, str(RESULTS / name / figures["set"]))["accuracy"]
    assert accuracy == pytest.approx(figures["draws"][0]["final"]["accuracy"], abs=0.003)


def test_the_table_of_results_does_not_make_a_commit_dirty(tmp_path):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "results" / "row").mkdir(parents=True)
    table_file, source = tmp_path / "results" / "README.md", tmp_path / "main.py"
    figures = tmp_path / "results" / "row" / "figures.json"
    table_file.write_text("one row")
    figures.write_text("1")
    source.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = record.commit(tmp_path)
    table_file.write_text("two rows")
    figures.write_text("2")
    assert record.commit(tmp_path) == clean
    source.write_text("2")
    assert record.commit(tmp_path) == f"{clean}-dirty"


def evaluations(*accuracies, on="validation"):
    """Rows of a run whose error rises and whose networks reach `accuracies` (None: diverged)."""
    rows = [{"network": "a", "on": on, "mean": mean} for mean in accuracies]
    return [
        {"step": step, "accuracy": 0.5, "mse": 0.01 * (step + 1), "networks": [row]}
        for step, row in enumerate(rows)
    ]


def test_networks_choose_among_sets_for_networks_on_validation_images():
    for_networks, for_kernel = algorithms.facts("frepo"), algorithms.facts("kip")

    def chosen(rows, facts=for_networks, on="validation"):
        return record.chosen_evaluation(rows, on, facts)["step"]

    assert chosen(evaluations(0.2, 0.4, 0.3)) == 1
    assert chosen(evaluations(0.2, 0.4, None)) == 1
    assert chosen(evaluations(0.2, 0.4, 0.3, on="test"), on="test") == 2  # They choose nothing.
    assert chosen(evaluations(0.2, 0.4, 0.3, on="held_out"), on="test") == 2
    without = [{"step": step, "accuracy": 0.5, "mse": 0.01 * (step + 1)} for step in range(3)]
    assert chosen(without) == 2
    assert chosen(evaluations(0.2, 0.4, 0.3), for_kernel) == 0
    assert chosen(without, for_kernel, on="test") == 2
    two = evaluations(0.2, 0.4, 0.3)
    two[2]["networks"].append({"network": "b", "on": "validation", "mean": 0.9})
    assert chosen(two) == 2


def test_another_number_of_networks_stands_behind_their_accuracy():
    rows = [
        {"network": name, "mean": 0.5, "std": 0.01, "seeds": seeds}
        for name, seeds in zip(words.NETWORKS, (words.SEEDS, 2), strict=True)
    ]
    assert words.by_networks({"network": rows}) == ("50.00 ± 1.00", "50.00 ± 1.00 (2)")


def test_the_method_names_a_kernel_that_is_not_the_tangent_kernel():
    config = {"algorithm": "rfad", "kernel": {"architecture": "convnet_plain", "kind": "nngp"}}
    assert words.method(config) == "RFAD, convnet_plain, nngp"
    config["kernel"]["kind"] = "ntk"
    assert words.method(config) == "RFAD, convnet_plain"


def test_a_row_without_the_figures_of_networks_is_not_measured():
    figures = {"network": [{"network": "convnet_in", "mean": 0.5, "std": 0.01, "seeds": 5}]}
    assert words.by_networks(figures) == ("", "50.00 ± 1.00")
    assert words.by_networks({}) == ("", "")


def test_published_figures_are_those_that_comparisons_show():
    """For KIP the best variant, also beside its images with other labels."""
    of_kip = re.compile(r"(?:kip(?!_fc).*|.*_relabelled)")
    stated = {e.name: e.published for e in EXPERIMENTS if of_kip.fullmatch(e.name) and e.published}
    assert len(stated) > 20
    for name, figure in stated.items():
        dataset, size = re.search(r"(fashion_mnist|mnist|cifar10)_(\d+)", name).groups()
        known = published.accuracy("KIP", dataset, int(size) // 10)
        assert figure == next(value for value, one in known if one.measured_by == "kernel"), name
