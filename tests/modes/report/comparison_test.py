"""The page of several runs side by side."""

import page_checks
from made_pages import KINDS
from made_runs import make_run

from kip_flax.modes.pages import NONE
from kip_flax.modes.report import page as report


def test_several_runs_stand_side_by_side(tmp_path):
    make_run(tmp_path / "a" / "run", kernel__depth=2)
    make_run(tmp_path / "b" / "run", **KINDS["label solve"])
    path = tmp_path / "comparison.html"
    report.write_comparison([tmp_path / "a" / "run", tmp_path / "b" / "run"], path, {})
    tree, errors = page_checks.parse(path.read_text(encoding="utf-8"))
    assert errors == []
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    assert page_checks.skips_no_level(page_checks.heading_levels(tree))
    rows = [[cell.text or "" for cell in tr] for tr in tree.iter("tr")]
    assert ["", "run (1)", "run (2)"] in rows
    assert ["kernel.depth", "2", "3"] in rows
    assert ["algorithm", "kip", "ls"] in rows
    assert not any("Accuracy by networks" in (e.text or "") for e in tree.iter("h2"))
    assert ["time", "1 min 23 s", "1 min 23 s"] in rows


def test_what_networks_reach_is_compared_where_some_were_trained(tmp_path):
    make_run(tmp_path / "a", **KINDS["networks"])
    make_run(tmp_path / "b", networks=("convnet_plain:3",), status="running")
    make_run(tmp_path / "c")
    path = tmp_path / "comparison.html"
    report.write_comparison([tmp_path / name for name in "abc"], path, {})
    tree, errors = page_checks.parse(path.read_text(encoding="utf-8"))
    assert errors == []
    rows = [[cell.text or "" for cell in tr] for tr in tree.iter("tr")]
    accuracy = "42.00 ± 1.41 % of test images"
    assert ["by convnet_plain:3", accuracy, accuracy, NONE] in rows
    assert ["by convnet_in", "37.00 ± 1.41 % of test images", NONE, NONE] in rows
    (chart,) = (
        e for e in tree.iter("svg") if e.get("aria-labelledby", "").startswith("all-networks")
    )
    lines = [tuple(line.get("class").split()[:2]) for line in chart.iter("polyline")]
    assert lines == [("s0", "d0"), ("s0", "d1"), ("s1", "d1")]
    assert "b, convnet_plain:3 40.00 % at step 10" in chart.find("desc").text


def test_label_solve_stands_where_it_is_a_baseline(tmp_path):
    """Not what it has of learned images, by another loss, or half done."""
    of_labels = KINDS["label solve"]
    make_run(tmp_path / "a", **of_labels)
    make_run(tmp_path / "b", **of_labels | {"status": "running"})
    make_run(tmp_path / "c", **of_labels | {"algorithm": "ls_cross_entropy"})
    make_run(tmp_path / "d", **of_labels | {"support__init": "made.npz"})
    path = tmp_path / "comparison.html"
    report.write_comparison([tmp_path / name for name in "abcd"], path, {})
    tree, _ = page_checks.parse(path.read_text(encoding="utf-8"))
    (row,) = (
        cells
        for tr in tree.iter("tr")
        if (cells := [cell.text or "" for cell in tr])[0] == "Label Solve"
    )
    assert row[1].endswith("%")
    assert row[2:] == [NONE] * 3
