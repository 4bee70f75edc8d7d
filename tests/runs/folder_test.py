"""The files of a run: made up, of a real run, old or broken."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run
from whole_runs import STEPS

from kip_flax import data, preprocess
from kip_flax.runs.folder import RunFolder, folder_of_all, named_folders
from kip_flax.runtime.errors import UserError


def test_a_real_run_is_read_back(undisturbed):
    workdir, _ = undisturbed
    folder = RunFolder(workdir)
    assert folder.result()["status"] == "finished"
    assert [row["step"] for row in folder.evaluations()] == [0, 5, STEPS]
    assert folder.config()["kernel"]["architecture"] == "fc"
    assert [row["step"] for row in folder.history(6)] == [2, 4, 6]
    assert {step: path.name for step, path in folder.distilled().items()} == {
        step: f"FC1_ssize10_nozca_l_aug_ckpt{step}.npz" for step in (0, 5, STEPS)
    }
    fitted = preprocess.fit("standard", data.load_dataset("digits").train_images)
    arrays, expected = preprocess.to_arrays(folder.preprocessing()), preprocess.to_arrays(fitted)
    assert arrays.keys() == expected.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], expected[name])


def test_all_that_a_run_leaves_has_its_name_here(undisturbed):
    folder = RunFolder(undisturbed[0])
    files = (
        *(folder.result_file, folder.config_file, folder.history_file, folder.preprocessing_file),
        *(folder.picture, folder.report, folder.lock),
    )
    folders = folder.distilled_folder, folder.metrics, folder.checkpoints
    assert all(path.is_file() for path in (*files, folder.index))
    assert all(path.is_dir() for path in folders)
    assert set(folder.path.iterdir()) == {*files, *folders}


def test_sets_that_the_index_lists_and_that_are_there(tmp_path):
    make_run(tmp_path, steps=(0, 1, 10))
    folder = RunFolder(tmp_path)
    assert list(folder.distilled()) == [0, 1, 10]
    folder.distilled()[1].unlink()
    assert list(folder.distilled()) == [0, 10]
    folder.index.unlink()
    assert folder.distilled() == {}


def test_label_solve_publishes_its_last_tile_as_step_1(tmp_path):
    make_run(tmp_path, steps=(0, 4), algorithm="ls")
    found = RunFolder(tmp_path).distilled()
    assert list(found) == [0, 4]
    assert found[4].stem.endswith("ckpt1")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda folder: folder.result_file.unlink(), "holds no run"),
        (lambda folder: folder.result_file.write_text("{"), "cannot read"),
        (lambda folder: folder.result_file.write_text("[]"), "no JSON object"),
        (lambda folder: folder.index.write_text("a,b\n1,2\n"), "cannot read"),
    ],
)
def test_a_broken_folder_is_reported_in_one_line(tmp_path, broken, message):
    make_run(tmp_path)
    folder = RunFolder(tmp_path)
    broken(folder)
    with pytest.raises(UserError, match=message) as caught:
        folder.distilled()
    assert "\n" not in str(caught.value)


def test_an_earlier_result_may_be_missing_or_broken(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.earlier_result() == {}
    folder.write_result({"seconds": 3})
    assert folder.earlier_result() == {"seconds": 3}
    for text in ("{", "[]"):
        folder.result_file.write_text(text)
        assert folder.earlier_result() == {}


def test_what_is_written_is_read(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.write_config({"kernel": {"depth": 3}})
    assert folder.config() == {"kernel": {"depth": 3}}
    assert json.loads(folder.config_file.read_text()) == folder.config()
    with pytest.raises(UserError, match=r"preprocess\.npz does not exist"):
        folder.preprocessing()


def test_a_folder_that_is_in_use_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(UserError, match=r"workdir .* is in use"), folder.locked():
        pass
    with folder.locked():  # Free again.
        pass


def test_an_analysis_of_another_set_or_a_broken_one_is_none(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(b"one set")
    folder = RunFolder(tmp_path)
    folder.write_analysis(path, {"eigenvalues": np.arange(3.0)}, {"step": 4})
    read = folder.analysis(path)
    assert read["step"] == 4
    np.testing.assert_array_equal(read["eigenvalues"], np.arange(3.0))
    path.write_bytes(b"another")
    assert folder.analysis(path) is None
    path.write_bytes(b"one set")
    folder.analysis_file.write_bytes(b"PK broken")
    assert folder.analysis(path) is None
    assert RunFolder(tmp_path / "nowhere").analysis(path) is None


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to the workdir .*file/run \("):
        RunFolder.make(str(tmp_path / "file" / "run"))


def test_workdir_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert RunFolder.make("runs/a").path == tmp_path / "runs" / "a"
    assert (tmp_path / "runs" / "a").is_dir()


HISTORY = [{"step": 10, "loss": 0.25, "accuracy": 0.5}, {"step": 20, "loss": 0.125, "new": 1.0}]


def test_the_history_has_a_column_for_every_name_and_step_first(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_history(HISTORY)
    with open(folder.history_file, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "accuracy", "new"]
    assert rows[0] == {"step": "10", "loss": "0.25", "accuracy": "0.5", "new": ""}
    assert folder.history() == HISTORY


def test_rows_after_a_checkpoint_are_left_out(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_history(HISTORY)
    assert folder.history(19) == HISTORY[:1]


def test_damage_of_the_history_costs_its_row_alone(tmp_path):
    folder = RunFolder(tmp_path)
    folder.history_file.write_bytes(b"step,loss\n1,2\nx,3\n5,y\n6")
    assert folder.history() == [{"step": 1, "loss": 2}, {"step": 5}, {"step": 6}]
    folder.history_file.write_bytes(b"\xff\xfe\x00")
    assert folder.history() == []
    assert RunFolder(tmp_path / "nowhere").history() == []


def test_pages_on_runs_without_a_folder_in_common_go_to_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_of_all([Path("/data/a/one"), Path("/data/b/two")]) == Path("/data")
    assert folder_of_all([Path("/data/a/one"), Path("/home/b/two")]) == tmp_path
    assert folder_of_all([Path("/one"), Path("/two")]) == tmp_path


def test_folders_are_named_between_commas_and_one_may_hold_a_comma(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr0.1,b200").mkdir()
    assert named_folders("lr0.1,b200") == [tmp_path / "lr0.1,b200"]
    assert named_folders("a, b") == [tmp_path / "a", tmp_path / "b"]
    assert len(named_folders(",".join(f"run{number:03}" for number in range(60)))) == 60
    with pytest.raises(UserError, match="has an empty name"):
        named_folders("a,")
    with pytest.raises(UserError, match="names a folder twice"):
        named_folders("a,./a")
