"""The page of runs whose numbers are known: what it says, and that it is sound for everyone."""

import re
from pathlib import Path

import numpy as np
import page_checks
import pytest
from made_pages import KINDS, page, pictures_of, text_of

from kip_flax.data import sampling
from kip_flax.modes import pages
from kip_flax.modes.pages import TIMES
from kip_flax.modes.report import facts as report_facts
from kip_flax.modes.report import page as report
from kip_flax.runs.folder import RunFolder

CSS = (Path(pages.__file__).parent / "templates" / "base.css").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_sound(tmp_path, kind):
    html, _ = page(tmp_path, **KINDS[kind])
    tree, errors = page_checks.parse(html)
    assert errors == []
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    for element in tree.iter():
        referred = f"{element.get('aria-labelledby', '')} {element.get('for', '')}".split()
        referred += [element.get("href")[1:]] if (element.get("href") or "").startswith("#") else []
        assert set(referred) <= set(ids)
        if element.tag == "img":
            assert element.get("alt")
            assert element.get("width")
            assert element.get("height")
        if element.get("role") == "img":
            assert element.get("aria-label") or element.get("aria-labelledby")
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)|url\(([^)]+)\)""", html)
    assert addresses
    assert all((a or b).startswith(("data:", "#")) for a, b in addresses)
    assert not re.search(r"""https?://|@import|\bfetch\(|XMLHttpRequest""", html)
    assert page_checks.skips_no_level(page_checks.heading_levels(tree))
    assert tree.get("lang") == "en"


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_aa(dark):
    colours = page_checks.colours(CSS, dark)
    for ink, ground in page_checks.TEXT:
        assert page_checks.contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for mark, ground in page_checks.MARKS:
        assert page_checks.contrast(colours[mark], colours[ground]) >= 3, (mark, ground)
    for hue in ("accent", "start"):
        shade = page_checks.mixed(colours[hue], colours["card"], page_checks.tint(CSS, dark))
        assert page_checks.contrast(colours["ink"], shade) >= 4.5, hue


def test_the_first_screen_says_how_well_from_what_at_what_cost(tmp_path):
    html, _ = page(tmp_path)
    tree, _ = page_checks.parse(html)
    (header,) = tree.iter("header")
    text = text_of(header)
    for words in (
        "10 learned images of digits, in place of 1,438",
        "depth 3) on them gets 76.67 % of 359 test images right; on what they started from, 50",
        "+26.7 points since step 0",
        "Label Solve77.77 %",
        "one for every 144; 1 per class, labels learned",
        "1 min 23 s",
        "10 steps on 2 x cpu (some, 2 cores)",
        "finished at step 10",
    ):
        assert words in text, words


def test_curves_have_every_evaluation_and_the_levels(tmp_path):
    html, _ = page(tmp_path)
    tree, _ = page_checks.parse(html)
    (chart,) = (
        e for e in tree.iter("svg") if e.get("aria-labelledby", "").startswith("r0-accuracy")
    )
    dots = [(float(c.get("cx")), c.find("title").text) for c in chart.iter("circle")]
    left, width, last = map(float, chart.get("data-scale").split())
    for (x, title), step in zip(dots, (0, 1, 10), strict=True):
        assert x == pytest.approx(left + width * np.log(1 + step) / np.log(1 + last), abs=0.06)
        assert title.startswith(f"test, {step}: ")
    ys = [float(c.get("cy")) for c in chart.iter("circle")]
    first, solved = (
        float(e.get("y1")) for e in chart.iter("line") if "level" in e.get("class", "")
    )
    assert first == ys[0]
    share = (0.7777 - 0.5) / (0.76667 - 0.5)  # Between the first and the last evaluation.
    assert solved == pytest.approx(ys[0] + share * (ys[2] - ys[0]), abs=0.3)
    assert "Label Solve on those: 77.77" in chart.find("desc").text.replace("\u00a0", " ")


def test_networks_have_curves_and_tiles_of_their_own(tmp_path):
    html, _ = page(tmp_path, **KINDS["networks"])
    tree, _ = page_checks.parse(html)
    (chart,) = (
        e for e in tree.iter("svg") if e.get("aria-labelledby", "").startswith("r0-accuracy")
    )
    dots = {c.find("title").text: c for c in chart.iter("circle")}
    titles = [name for name in dots if name.startswith("convnet_plain:3, held-out images, ")]
    assert [name.rpartition(", ")[2] for name in titles] == [
        "0: 20 % ± 1.41",
        "1: 30 % ± 1.41",
        "10: 40 % ± 1.41",
    ]
    kernel = [c for name, c in dots.items() if name.startswith("kernel, test images, ")]
    assert [c.get("cx") for c in kernel] == [dots[name].get("cx") for name in titles]
    assert {dots[name].get("class") for name in titles} == {"k-network"}
    assert "k-network-2" in {c.get("class") for c in dots.values()}
    words = text_of(tree)
    assert "By networks42.00 %± 1.41; 2 x convnet_plain:3, width 128, test images" in words
    assert "By networks37.00 %" in words
    (table,) = (e for e in tree.iter("table") if "evaluated steps" in e.find("caption").text)
    rows = [[cell.text for cell in tr] for tr in table.iter("tr")]
    assert rows[0][3:] == ["convnet_plain:3, held-out images", "convnet_in, held-out images"]
    assert rows[2][3:] == ["30.00 ± 1.41 %", "25.00 ± 1.41 %"]
    assert "convnet_in, held-out images: 15.00" in chart.find("desc").text


def test_a_network_that_diverged_has_no_point(tmp_path):
    page(tmp_path, **KINDS["networks"])
    result = RunFolder(tmp_path).result()
    for evaluation in result["evaluations"]:
        for row in evaluation["networks"]:
            row |= {"accuracies": [], "mean": None, "std": None}
    RunFolder(tmp_path).write_result(result)
    report.write(tmp_path, {})
    tree, errors = page_checks.parse((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert errors == []
    assert "convnet_plain:3diverged" in text_of(tree)
    assert "test, 10: " in "".join(e.text for e in tree.iter("title") if e.text)


def test_mistakes_and_spectrum_are_those_of_the_analysis(tmp_path):
    html, _ = page(tmp_path)
    facts = report_facts.gather(tmp_path, {})
    tree, _ = page_checks.parse(html)
    (table,) = (e for e in tree.iter("table") if e.get("class") == "confusion")
    cells = [[int(td.text) for td in tr.iter("td")] for tr in table.find("tbody").iter("tr")]
    np.testing.assert_array_equal(cells, facts.analysis["confusion"])
    assert "Condition number 300," in text_of(tree)
    assert "at the start 125" in text_of(tree)
    ridge = (30 + 1e-6 * facts.analysis["eigenvalues"].mean()) / 0.1
    assert f"with the ridge {ridge:.4g}"[:20] in text_of(tree)


def test_a_kernel_that_is_not_positive_has_no_condition_number(tmp_path):
    page(tmp_path)
    folder = RunFolder(tmp_path)
    facts = report_facts.gather(tmp_path, {})
    found = facts.analysis | {"eigenvalues": np.array([30.0, 0.1, -1e-7])}
    folder.write_analysis(facts.files[10], found, {})
    report.write(tmp_path, {})
    tree, errors = page_checks.parse((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert errors == []
    assert f"Condition number \N{INFINITY}, with the ridge 3.02 {TIMES} 106" in text_of(tree)


def test_an_algorithm_from_elsewhere_has_a_page(tmp_path):
    text = text_of(page_checks.parse(page(tmp_path, algorithm="somewhere.else")[0])[0])
    assert "10 learned images of digits" in text
    assert "The algorithm's own loss" in text
    assert "10 steps on 2 x cpu" in text


def test_many_classes_are_a_picture_and_the_worst_pairs(tmp_path):
    html, _ = page(tmp_path, **KINDS["many classes"])
    counts = report_facts.gather(tmp_path, {}).analysis["confusion"]
    tree, _ = page_checks.parse(html)
    (image,) = tree.iter("img")
    assert image.get("width") == "100"
    wrong = counts - np.diag(np.diag(counts))
    text = text_of(tree)
    assert f"{wrong.max()}" in text.split("The most frequent mistakes")[-1]


def test_what_differs_from_the_defaults_comes_first(tmp_path):
    html, _ = page(tmp_path, kernel__depth=2)
    tree, _ = page_checks.parse(html)
    tables = [e for e in tree.iter("table") if "differs" in (e.find("caption").text or "")]
    rows = [[cell.text for cell in tr] for tr in tables[0].find("tbody").iter("tr")]
    assert rows == [["kernel.depth", "2", "3"], ["num_steps", "10", "1000"]]


def test_another_algorithm_has_its_own_loss_apart_and_says_whether_labels_were_learned(tmp_path):
    text = text_of(page_checks.parse(page(tmp_path / "a", algorithm="dc", relabelled=False)[0])[0])
    assert "The algorithm's own loss" in text
    assert "1 per class, labels fixed" in text
    text = text_of(page_checks.parse(page(tmp_path / "b")[0])[0])
    assert "The algorithm's own loss" not in text
    assert "1 per class, labels learned" in text
    text = text_of(page_checks.parse(page(tmp_path / "c", algorithm="kip_newton")[0])[0])
    assert "1 per class, labels solved" in text


@pytest.mark.parametrize("size", [10, 150])
def test_neighbours_are_those_of_the_analysis(tmp_path, size):
    html, _ = page(tmp_path, size=size, shape=(32, 32, 1))
    found = report_facts.gather(tmp_path, {}).analysis
    shown = pictures_of(html, "#r0 .real").reshape(-1, 32, 20, 32).swapaxes(1, 2)
    shown = shown.reshape(-1, 32, 32)
    tree, _ = page_checks.parse(html)
    tiles = [e for e in tree.iter("div") if e.get("class") == "tile real"]
    rows = found["nearest_rows"][sampling.evenly(size, 400_000 // (3 * 32 * 32))]
    assert len(tiles) == 3 * len(rows)
    for at in (0, len(tiles) // 2, len(tiles) - 1):
        column, row = map(
            int, re.fullmatch(r"--c:(\d+);--r:(\d+)", tiles[at].get("style")).groups()
        )
        image, rank = rows[at // 3], at % 3
        expected = found["nearest_pixels"][image, rank, ..., 0]
        np.testing.assert_array_equal(shown[20 * row + column], expected)
        name = found["nearest_labels"][image, rank]
        assert tiles[at].get("aria-label").startswith(f"Real image of class {name}, cosine ")


def test_only_a_page_of_a_run_that_goes_on_reloads(tmp_path):
    for status, expected in (("running", True), ("stopped", False), ("finished", False)):
        html, _ = page(tmp_path / status, status=status)
        assert ("data-reload" in re.search(r"<body[^>]*>", html)[0]) is expected
        assert f"{status} at step" in html or "running, step 10 of 10" in html


def test_notes_say_what_the_pictures_do_not(tmp_path):
    assert "norm of each image is lost" in page(tmp_path / "a", **KINDS["zca, long names"])[0]
    many, _ = page(tmp_path / "b", **KINDS["many images"])
    assert "200 of 250 images are shown" in many
    plain, _ = page(tmp_path / "c")
    assert "norm of each image is lost" not in plain
    assert "are shown" not in plain
