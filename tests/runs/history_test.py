"""history.csv as a spreadsheet reads it, and what is left of a damaged one."""

import csv

from kip_flax.runs import history

ROWS = [{"step": 10, "loss": 0.25, "accuracy": 0.5}, {"step": 20, "loss": 0.125, "new": 1.0}]


def test_a_column_for_every_name_and_step_first(tmp_path):
    history.write(tmp_path, ROWS)
    with open(tmp_path / history.FILE, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "accuracy", "new"]
    assert rows[0] == {"step": "10", "loss": "0.25", "accuracy": "0.5", "new": ""}
    assert history.read(tmp_path) == ROWS


def test_rows_after_a_checkpoint_are_left_out(tmp_path):
    history.write(tmp_path, ROWS)
    assert history.read(tmp_path, 19) == ROWS[:1]


def test_damage_costs_its_row_alone(tmp_path):
    (tmp_path / history.FILE).write_bytes(b"step,loss\n1,2\nx,3\n5,y\n6")
    assert history.read(tmp_path) == [{"step": 1, "loss": 2}, {"step": 5}, {"step": 6}]
    (tmp_path / history.FILE).write_bytes(b"\xff\xfe\x00")
    assert history.read(tmp_path) == []
    assert history.read(tmp_path / "nowhere") == []
