"""The page of several runs side by side."""

import page_checks
from made_pages import KINDS
from made_runs import make_run

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
    assert ["time", "1 min 23 s", "1 min 23 s"] in rows
