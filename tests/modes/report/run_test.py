"""What whole runs leave for those who look: report, analysis, history, TensorBoard."""

import json
import shutil

import numpy as np
import pytest
from quick import quick_kernel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util.tensor_util import make_ndarray
from whole_runs import STEPS, label_solve, result, small, stop_at

from kip_flax import data, export, preprocess
from kip_flax.modes.report import facts as report_facts
from kip_flax.modes.report import mode as report_mode
from kip_flax.modes.report import page as report
from kip_flax.modes.train import mode as train
from kip_flax.runs import setup
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_kernels")
ALL = 2000  # More than the digits' 1,438 training images.


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_kernels):
    workdir = tmp_path_factory.mktemp("run")
    train.train_and_evaluate(small(report__num_train=ALL), str(workdir))
    return workdir


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def facts(workdir):
    return report_facts.gather(workdir, {})


def test_the_analysis_agrees_with_the_runs_own_figures(run):
    found, evaluations = facts(run).analysis, result(run)["evaluations"]
    assert (found["step"], found["num_test"], found["of_test"]) == (STEPS, 60, 359)
    assert (found["num_train"], found["of_train"]) == (1438, 1438)
    for name, row in (("confusion", evaluations[-1]), ("initial_confusion", evaluations[0])):
        assert found[name].sum() == 60
        assert np.trace(found[name]) / 60 == pytest.approx(row["accuracy"], abs=1e-7)


def test_the_level_of_label_solve_is_what_the_algorithm_gets(run, tmp_path):
    """The same initial images, solved for on all targets by the other algorithm."""
    config = small(algorithm="ls", batch_size=400)
    train.train_and_evaluate(config, str(tmp_path))
    natural, solved = result(tmp_path)["evaluations"]
    assert natural["mse"] == pytest.approx(result(run)["evaluations"][0]["mse"], rel=1e-6)
    accuracy, mse = facts(run).analysis["solved"]
    assert accuracy == pytest.approx(solved["accuracy"], abs=1e-7)
    assert mse == pytest.approx(solved["mse"], rel=1e-4)
    report.write(tmp_path, {})
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "10 real images of digits with solved labels" in html
    assert "are left out: report.num_train is 0" in html


def test_neighbours_are_real_images_of_the_training_set(run):
    found = facts(run).analysis
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    train_images = preprocess.apply(fitted, digits.train_images)
    last = export.load_distilled(facts(run).files[STEPS]).images
    cosines = np.asarray(quick_kernel(None)(train_images, last))  # k(x, x) is 1.
    best = cosines.argmax(axis=0)
    np.testing.assert_array_equal(found["nearest_pixels"][:, 0], digits.train_images[best])
    np.testing.assert_array_equal(found["nearest_labels"][:, 0], digits.train_labels[best])
    np.testing.assert_allclose(found["nearest_similarity"][:, 0], cosines.max(axis=0), rtol=1e-5)


def test_the_page_is_there_and_finished(run):
    html = (run / "report.html").read_text(encoding="utf-8")
    last = result(run)["evaluations"][-1]
    assert f"{100 * last['accuracy']:.2f}\u00a0%" in html
    assert f"finished at step {STEPS}" in html
    assert "data-reload" not in html
    assert 'class="confusion"' in html
    assert not list(run.glob(".*.tmp"))


def test_the_page_can_be_watched_while_the_run_goes_on(tmp_path, monkeypatch):
    seen = []
    write = report.write

    def watched(workdir, frames, awaited=False):
        write(workdir, frames, awaited)
        seen.append((workdir / "report.html").read_text(encoding="utf-8"))

    monkeypatch.setattr(report, "write", watched)
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        train.train_and_evaluate(small(), str(tmp_path))
    assert len(seen) == 3  # Steps 0 and 5, and the stop.
    assert ["data-reload" in html for html in seen] == [True, True, False]
    assert f"running, step 5 of {STEPS}" in seen[1]
    assert "stopped at step 7" in seen[2]
    train.train_and_evaluate(small(report__num_train=ALL), str(tmp_path))
    before, after = seen[-2:]  # The analysis: those who watch see it come.
    assert "data-reload" in before
    assert 'class="confusion"' not in before
    assert "data-reload" not in after
    assert 'class="confusion"' in after


def test_history_is_that_of_the_event_files_and_survives_a_lost_checkpoint(copy, run):
    def losses(workdir):
        return [(row["step"], row["loss"], row["accuracy"]) for row in RunFolder(workdir).history()]

    first = losses(run)
    assert [step for step, *_ in first] == list(range(2, STEPS + 1, 2))
    events = EventAccumulator(str(run / "metrics"))
    events.Reload()
    tensors = {e.step: float(make_ndarray(e.tensor_proto)) for e in events.Tensors("loss")}
    assert {int(step): pytest.approx(loss, rel=1e-6) for step, loss, _ in first} == tensors
    for step in (8, STEPS):
        shutil.rmtree(copy / "checkpoints" / str(step))
    train.train_and_evaluate(small(report__num_train=ALL), str(copy))
    assert losses(copy) == first


def test_tensorboard_has_pictures_labels_figures_and_hyper_parameters(run):
    events = EventAccumulator(str(run / "metrics"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"images", "labels", "loss", "accuracy", "test_accuracy", "test_mse"} <= set(tags)
    accuracies = [float(make_ndarray(e.tensor_proto)) for e in events.Tensors("test_accuracy")]
    expected = [row["accuracy"] for row in result(run)["evaluations"]]
    np.testing.assert_allclose(accuracies, expected, rtol=1e-6)
    for tag in ("images", "labels"):
        shown = events.Tensors(tag)
        assert [e.step for e in shown] == [0, 5, STEPS]
        width, height, png = make_ndarray(shown[0].tensor_proto)
        assert png.startswith(b"\x89PNG")
        assert int(width) > 500
        assert int(height) > 50
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["batch_size"].number_value == 30
    assert start.hparams["kernel.architecture"].string_value == "fc"
    assert start.hparams["support.learn_labels"].bool_value is True


@pytest.mark.parametrize("killed", ["within the analysis", "before the page"])
def test_the_same_command_completes_a_report_that_a_kill_left_waiting(copy, run, killed, capsys):
    if killed == "within the analysis":
        (copy / "analysis.npz").unlink()
    report.write(copy, {}, awaited=True)
    assert "data-reload" in (copy / "report.html").read_text()
    for words in ("completing the report of", "nothing to do in"):
        train.train_and_evaluate(small(report__num_train=ALL), str(copy))
        assert f"finished at step {STEPS}: {words} {copy}" in capsys.readouterr().out
    assert "data-reload" not in (copy / "report.html").read_text()
    np.testing.assert_allclose(facts(copy).analysis["solved"], facts(run).analysis["solved"])


def test_a_page_is_made_again_without_the_analysis_of_the_run(copy, run, capsys):
    before = facts(run).analysis
    for name in ("analysis.npz", "report.html"):
        (copy / name).unlink()
    assert report_mode.write_reports(str(copy), None) == copy / "report.html"
    assert f"report  {copy / 'report.html'}" in capsys.readouterr().out
    after = facts(copy).analysis
    for name in ("confusion", "eigenvalues", "solved", "nearest_labels"):
        np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize("lacks", ["its module", "a field"])
def test_a_page_needs_no_valid_configuration(copy, capsys, monkeypatch, lacks):
    config = json.loads((copy / "config.json").read_text())
    if lacks == "its module":
        config["algorithm"] = "mine.class_means"
    else:
        del config["newton"]["block"]  # As of an older program.
        monkeypatch.setattr(report_facts, "defaults", dict)
    (copy / "config.json").write_text(json.dumps(config))
    for name in ("analysis.npz", "report.html"):
        (copy / name).unlink()
    report_mode.write_reports(str(copy), None)
    assert "without an analysis of" in capsys.readouterr().out
    assert f"finished at step {STEPS}" in (copy / "report.html").read_text()


def test_a_page_without_its_data_says_why_there_is_no_analysis(copy, capsys):
    (copy / "analysis.npz").unlink()
    config = json.loads((copy / "config.json").read_text())
    config["dataset"] |= {"name": "mnist", "data_dir": "/nowhere"}
    (copy / "config.json").write_text(json.dumps(config))
    report_mode.write_reports(str(copy), None)
    out = capsys.readouterr().out
    assert "without an analysis" in out
    assert "/nowhere" in out
    assert "were not computed" in (copy / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("part", ["checksum", "tests_checksum"])
def test_other_data_than_the_run_s_are_not_analysed(copy, capsys, part):
    (copy / "analysis.npz").unlink()
    result = json.loads((copy / "result.json").read_text())
    result["data"][part] += 1
    (copy / "result.json").write_text(json.dumps(result))
    report_mode.write_reports(str(copy), None)
    out = " ".join(capsys.readouterr().out.split())
    assert "without an analysis" in out
    assert "its data are others now: set --config.dataset.data_dir to its own" in out


def test_a_folder_at_work_is_shown_as_it_is(copy, capsys):
    (copy / "analysis.npz").unlink()
    with setup.own_folder(str(copy), small()):
        report_mode.write_reports(str(copy), None)
    assert "in use by another run" in capsys.readouterr().out
    assert (copy / "report.html").exists()


def test_two_runs_make_one_page_beside_them(run, copy, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    page = report_mode.write_reports(f"{copy},{other}", None)
    assert page == tmp_path / report.COMPARISON
    html = page.read_text(encoding="utf-8")
    assert "2 runs side by side" in html
    assert 'id="r1-images"' in html
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    runs.Reload()
    assert {"copy/metrics", "other/metrics"} <= set(runs.Runs())


@pytest.mark.parametrize(
    ("given", "message"),
    [("{run},{run}", "names a folder twice"), ("{run}/nothing", "holds no run")],
)
def test_a_mistake_in_the_folders_is_one_line(run, given, message):
    with pytest.raises(UserError, match=message) as caught:
        report_mode.write_reports(given.format(run=run), None)
    assert "\n" not in str(caught.value)


def test_another_experiment_is_refused(run):
    with pytest.raises(UserError, match="another experiment"):
        report_mode.write_reports(str(run), small(reg=0.5))


def test_label_solve_has_an_analysis_of_its_own_last_set(tmp_path):
    config = label_solve(report__num_train=100)
    state = train.train_and_evaluate(config, str(tmp_path))
    found = facts(tmp_path).analysis
    assert found["num_train"] == 200  # Ten per support image.
    k_ss = np.asarray(quick_kernel(None)(state.images, state.images), np.float64)
    np.testing.assert_allclose(found["eigenvalues"], np.linalg.eigvalsh(k_ss)[::-1], rtol=1e-3)
    last = result(tmp_path)["evaluations"][-1]["accuracy"]
    assert np.trace(found["confusion"]) / 60 == pytest.approx(last, abs=1e-7)
