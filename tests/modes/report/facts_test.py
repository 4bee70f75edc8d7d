"""What the page is made from: the files of a run, whole, old or broken."""

import json
import sys
import types

import numpy as np
import page_checks
import pytest
from made_pages import text_of
from made_runs import make_run

from kip_flax.modes.figures import mode as figures_mode
from kip_flax.modes.report import facts as report_facts
from kip_flax.modes.report import page as report
from kip_flax.modes.report import results as report_results
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.errors import UserError


def test_a_long_history_is_thinned_to_what_a_chart_can_show(tmp_path):
    make_run(tmp_path)
    logged = [{"step": step, "loss": 1 / step} for step in range(1, 5001)]
    RunFolder(tmp_path).write_history(logged)
    shown = [row["step"] for row in report_facts.gather(tmp_path, {}).history]
    assert len(shown) == 1000
    assert (shown[0], shown[-1]) == (1, 5000)


def test_a_folder_from_before_the_sizes_were_kept_has_a_page(tmp_path):
    make_run(tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    del result["data"]
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "history.csv").unlink()
    report.write(tmp_path, {})
    tree, errors = page_checks.parse((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert errors == []
    assert "10 learned images of digits" in text_of(tree)


@pytest.mark.parametrize(("algorithm", "change"), [("kip", True), ("ls", False)])
def test_before_the_second_evaluation_the_algorithm_says_what_will_change(
    tmp_path, algorithm, change
):
    make_run(tmp_path, steps=(0,), algorithm=algorithm)
    found = report_facts.gather(tmp_path, {})
    assert (found.images_changed, found.labels_changed) == (change, True)
    text = "The images stay as they are"
    report.write(tmp_path, {})
    assert (text in (tmp_path / "report.html").read_text(encoding="utf-8")) is not change


def test_an_evaluation_that_came_while_files_were_read_waits(tmp_path, monkeypatch):
    make_run(tmp_path)
    later, found = RunFolder.distilled, RunFolder(tmp_path).distilled()
    monkeypatch.setattr(RunFolder, "distilled", lambda folder: later(folder) | {20: found[10]})
    assert sorted(report_facts.gather(tmp_path, {}).files) == [0, 1, 10]
    assert [shown.step for shown in figures_mode.read_run(tmp_path).sets] == [0, 1, 10]


@pytest.mark.parametrize(
    "text",
    [
        "def get_config(): return CONFIG\n",
        "x = 1\n",
        "get_config = lambda: {}['model']\n",
    ],
)
def test_defaults_of_another_project_are_none_of_ours(tmp_path, monkeypatch, text):
    """An installed command imports configs/default.py of the working folder."""
    made = "from ml_collections import ConfigDict\n"
    made += "CONFIG = ConfigDict({'learning_rate': 0.1, 'seed': 3})\n" + text
    module = types.ModuleType("configs.default")
    exec(made, module.__dict__)
    monkeypatch.setitem(sys.modules, "configs.default", module)
    assert report_facts.defaults() == ({"seed": 3} if "CONFIG" in text else {})


def test_classes_without_test_images_have_no_bar(tmp_path):
    make_run(tmp_path, size=30, names=tuple(f"c{n}" for n in range(30)))
    found = report_facts.gather(tmp_path, {})
    analysis = dict(found.analysis)
    tested = np.arange(30) % 2 == 0
    for name in ("confusion", "initial_confusion", "solved_confusion"):
        analysis[name] = analysis[name] * tested[:, None]
    bars = report_results._per_class(found, analysis, "id")
    assert {bar.name for bar in bars.bars} <= {f"c{n}" for n in range(0, 30, 2)}


def test_an_analysis_of_another_set_is_not_shown(tmp_path):
    make_run(tmp_path)
    make_run(tmp_path, analysed=False, seed=1)
    assert report_facts.gather(tmp_path, {}).analysis is None


def test_pictures_are_read_once(tmp_path, monkeypatch):
    make_run(tmp_path)
    frames, read = {}, []
    report.write(tmp_path, frames)
    load = report_facts.export.load_distilled
    monkeypatch.setattr(
        report_facts.export, "load_distilled", lambda path: (read.append(path), load(path))[1]
    )
    report.write(tmp_path, frames)
    assert [path.stem[-6:] for path in read] == ["ckpt10"]  # For its names and sizes.


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda folder: (folder / "result.json").unlink(), "holds no run"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot read"),
        (lambda folder: (folder / "result.json").write_text("[]"), "no JSON object"),
        (lambda folder: (folder / "result.json").write_text("{}"), "no evaluated run yet"),
        (
            lambda folder: (folder / "distilled" / "index.csv").write_text("a,b\n1,2\n"),
            "cannot read",
        ),
    ],
)
def test_a_broken_folder_is_reported_in_one_line(tmp_path, broken, message):
    make_run(tmp_path)
    broken(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        report.write(tmp_path, {})
    assert "\n" not in str(caught.value)


def test_a_run_without_sets_or_index_still_has_a_page(tmp_path):
    make_run(tmp_path, analysed=False)
    (tmp_path / "distilled" / "index.csv").unlink()
    report.write(tmp_path, {})
    assert "no distilled sets to show" in (tmp_path / "report.html").read_text()
