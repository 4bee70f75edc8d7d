"""Accuracy against core hours: the page is fresh, and the picture shows what the files say."""

import contextlib
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from kip_flax.modes.figures.draw import rendered
from kip_flax.runtime.errors import UserError
from results import best, coresets, costs, networks, record
from results.words import NETWORKS

RESULTS = Path(costs.__file__).parent


def row(mean):
    return {"network": NETWORKS[0], "mean": mean, "std": 0.01, "seeds": 5}


def one(size, hours, mean, method="KIP"):
    return costs.Cost("mnist", size, method, "fixed", hours, 0.9, {NETWORKS[0]: row(mean)})


def test_the_page_is_what_the_figures_make_it():
    text = costs.PAGE.read_text()
    assert costs.page(RESULTS, text) == text
    pictures = set(re.findall(r"\((costs_\w+\.png)\)", text))
    assert pictures == {f"costs_{dataset}.png" for dataset in costs.DATASETS}
    assert all((costs.PAGE.parent / name).exists() for name in pictures)


@pytest.mark.parametrize("dataset", costs.DATASETS)
def test_a_row_of_the_table_has_the_figures_of_its_files(dataset):
    figures = record.read(RESULTS / f"frepo_{dataset}_10")
    by_name = {figure["network"]: figure["mean"] for figure in figures["network"]}
    (line,) = (
        x
        for x in costs.table(costs.costs(RESULTS, dataset)).splitlines()
        if "| [FRePo" in x and x.startswith("| 10 ")
    )
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == f"[FRePo, convnet](../results/frepo_{dataset}_10/README.md)"
    assert cells[3] == f"{figures['draws'][0]['cpu_seconds'] / 3600:.2g}"
    assert cells[4] == f"{100 * figures['draws'][0]['final']['accuracy']:.2f}"
    for cell, name in zip(cells[5:], NETWORKS, strict=True):
        assert float(cell.split(" ± ")[0]) == pytest.approx(100 * by_name[name], abs=5e-3)


def test_a_set_that_went_on_from_another_took_the_hours_of_both(tmp_path):
    for name, init, seconds in (("first", "real", 100.0), ("then", "results/first/x.npz", 40.0)):
        (tmp_path / name).mkdir()
        figures = {"config": {"support": {"init": init}}, "draws": [{"cpu_seconds": seconds}]}
        (tmp_path / name / record.FIGURES).write_text(json.dumps(figures))
    assert record.core_seconds(tmp_path / "first") == 100
    assert record.core_seconds(tmp_path / "then") == 140


def test_the_picture_has_a_panel_for_each_size_and_a_line_for_each_method():
    found = [
        one(10, 0.1, 0.8),
        one(10, 0.5, 0.7, "FRePo"),
        one(10, 2.0, 0.9),
        one(100, 1.0, 0.95),
        one(10, None, 0.5, "random"),
    ]
    drawn = costs.figure(found)
    assert rendered(drawn, "png").startswith(b"\x89PNG")
    ten, hundred = drawn.axes
    assert ten.get_title() == "10 images"
    chain, lone = (container.lines[0].get_xydata() for container in ten.containers)
    np.testing.assert_allclose(chain, [(0.1, 80), (2.0, 90)])
    np.testing.assert_allclose(lone, [(0.5, 70)])
    (point,) = (container.lines[0].get_xydata()[0] for container in hundred.containers)
    np.testing.assert_allclose(point, (1.0, 95))
    (text,) = ten.texts
    assert (text.get_text(), text.xy[1]) == ("random", 50)
    assert ten.get_xscale() == "log"


def test_the_best_sets_have_a_table_with_other_networks():
    found = [
        dataclasses.replace(one(10, 0.1, mean, method), row=method + str(mean))
        for method, means in {"A": (0.5, 0.6), "B": (0.4,), "C": (0.7,), "D": (0.1, 0.3)}.items()
        for mean in means
    ]
    found += [dataclasses.replace(one(100, 1.0, 0.9), row="large"), one(10, None, 0.95, "random")]
    found += [dataclasses.replace(one(10, 0.1, 0.2, "E"), row="E0.2")]
    assert [each.row for each in costs.best(found)] == ["C0.7", "A0.6", "B0.4", "D0.3"]
    assert not costs.table_of_best(found)  # No other network was trained.
    resnet = {"network": "resnet18_in", "mean": 0.625, "std": 0.01, "seeds": 5}
    found[0] = dataclasses.replace(found[0], networks=found[0].networks | {"resnet18_in": resnet})
    assert not costs.table_of_best(found)  # Nor on a set that is shown.
    found[1] = dataclasses.replace(found[1], networks=found[1].networks | {"resnet18_in": resnet})
    head, _, *lines = costs.table_of_best(found).splitlines()
    assert head == "| Images | Method | Labels | ConvNet-3 | ResNet-18 |"
    card = "../results/A0.6/README.md"
    assert lines[1] == f"| 10 | [A]({card}) | fixed | 60.00 ± 1.00 | 62.50 ± 1.00 |"
    assert len(lines) == costs.BEST


def test_only_the_best_sets_are_measured_by_other_networks(monkeypatch):
    measured = []
    monkeypatch.setattr(
        networks, "measure", lambda name, row, *_: measured.append((row.name, name))
    )
    monkeypatch.setattr(best.run_all.table, "write", lambda _: None)
    monkeypatch.setattr(best.run_all.files, "locked", lambda *_: contextlib.nullcontext())
    best.main([f"--runs={RESULTS}"])
    rows = {row for row, _ in measured}
    assert len(rows) == 2 * costs.BEST
    assert measured == [(row, name) for name in costs.OTHERS for row in dict(measured)]
    by_dataset = [costs.best(costs.costs(RESULTS, dataset)) for dataset in costs.DATASETS]
    assert rows == {each.row for sets in by_dataset for each in sets}


def test_coresets_are_measured_like_rows_and_once(tmp_path, monkeypatch):
    """The program is replaced by one that writes the table that it would write."""
    asked = []

    def program(arguments, workdir):
        asked.append(arguments)
        workdir.mkdir(parents=True)
        rows = [
            {"set": name, "size": 10, "network": network, "accuracies": [0.5, 0.7], "mean": 0.6,
             "std": 0.1, "learning_rate": 1e-3, "l2": 0.0, "seconds": 1.0}
            for name in ("distilled", *coresets.SETS)
            for network in ("krr", *NETWORKS)
        ]  # fmt: skip
        content = {"rows": rows, "hardware": "h", "versions": {}}
        (workdir / networks.TABLE).write_text(json.dumps(content))

    monkeypatch.setattr(networks.run_all, "program", program)
    monkeypatch.setattr(coresets, "FILE", str(tmp_path / "coresets.json"))
    for _ in range(2):
        coresets.main(["--data=data", f"--runs={tmp_path / 'runs'}"])
    assert len(asked) == len(coresets.EXPERIMENTS_OF_TEN)
    assert "--config.transfer.baselines=('random','herding','herding_unit')" in asked[0]
    for name, value in networks.FIELDS.items():
        if name not in ("transfer.networks", "transfer.baselines"):
            assert f"--config.{name}={value}".replace(" ", "") in asked[0]
    kept = coresets.read(RESULTS)
    assert [(r["dataset"], r["set"], r["krr"]) for r in kept] == [
        (dataset, name, 0.6) for dataset in ("cifar10", "mnist") for name in coresets.SETS
    ]
    found = [one for one in costs.costs(RESULTS, "mnist") if one.core_hours is None]
    assert [one.method for one in found] == [
        "real images, random",
        "real images, herding",
        "real images, herding_unit",
    ]
    (tmp_path / "coresets.json").write_text(json.dumps(kept[:2] + kept[3:]))
    coresets.main(["--data=data", f"--runs={tmp_path / 'more'}"])
    assert len(asked) == len(coresets.EXPERIMENTS_OF_TEN) + 1
    assert "--config.transfer.baselines=('herding_unit',)" in asked[-1]
    names = {(row["dataset"], row["set"]) for row in coresets.read(RESULTS)}
    assert len(names) == len(coresets.read(RESULTS)) == len(kept)


@pytest.mark.parametrize(
    ("error", "line"),
    [(UserError("no data"), "error: 2 of 2 rows failed"), (KeyboardInterrupt(), "stopped: ")],
)
def test_a_mistake_or_a_stop_of_the_coresets_is_one_line(
    error, line, tmp_path, monkeypatch, capsys
):
    def fail(*_):
        raise error

    monkeypatch.setattr(networks.run_all, "program", fail)
    monkeypatch.setattr(coresets, "FILE", str(tmp_path / "coresets.json"))
    with pytest.raises(SystemExit, match=line):
        coresets.main([f"--runs={tmp_path / 'runs'}"])
    assert ("error: frepo_mnist_10: no data\n" in capsys.readouterr().err) == ("error" in line)
