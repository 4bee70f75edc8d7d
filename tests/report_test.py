"""The page of runs whose numbers are known: what it says, and that it is sound for everyone."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import page_checks
import pytest
from made_runs import make_run
from PIL import Image

from kip_flax import history, report, report_axes, report_facts, report_sprites
from kip_flax.errors import UserError

CSS = (Path(report.__file__).parent / "report.css").read_text(encoding="utf-8")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HOSTILE = ("<b>&\"'</b>", "</script>", *"23456789")

KINDS = {
    "plain": {},
    "label solve": {"algorithm": "ls", "steps": (0, 4), "moved": False},
    "no analysis": {"analysed": False},
    "running": {"status": "running", "analysed": False},
    "stopped": {"status": "stopped"},
    "zca, long names": {"preprocessing": "zca_normalize", "names": CIFAR, "shape": (6, 6, 3)},
    "hostile names": {"names": HOSTILE},
    "many classes": {"names": tuple(f"class {n}" for n in range(100)), "size": 100},
    "only step 0": {"steps": (0,)},
    "another algorithm": {"algorithm": "dc"},
    "from noise": {"support__init": "noise"},
    "many images": {"size": 250, "names": tuple("abcde")},
}


def page(folder, **kind):
    sets = make_run(folder, **kind)
    report.write(folder, {})
    return (folder / report.REPORT).read_text(encoding="utf-8"), sets


def text_of(tree):
    return " ".join("".join(tree.itertext()).split()).replace("\u00a0", " ")


def data_of(html):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])


def pictures_of(html, selector):
    """The PNG of a rule of the style sheet, as an array."""
    rule = re.search(
        re.escape(selector) + r"[^{}]*\{[^{}]*background-image:url\(data:image/png;base64,([^)]*)",
        html,
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(rule[1]))))


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
    told = text_of(header)
    for words in (
        "10 learned images of digits, in place of 1,438",
        "gets 76.67 % of 359 test images right; on what they started from, 50.00 %",
        "+26.7 points since step 0",
        "Label Solve77.77 %",
        "one for every 144; 1 per class, labels learned",
        "1 min 23 s",
        "10 steps on 2 x cpu (some, 2 cores)",
        "finished at step 10",
    ):
        assert words in told, words


def test_pictures_and_labels_are_those_of_the_files(tmp_path):
    html, sets = page(tmp_path)
    data = data_of(html)
    assert [frame["step"] for frame in data["frames"]] == list(sets)
    low, high = data["range"]
    for frame in data["frames"]:
        pictures, labels = sets[frame["step"]]
        values = np.frombuffer(base64.b64decode(frame["values"]), "<i2") * frame["scale"]
        np.testing.assert_allclose(values.reshape(labels.shape), labels, atol=4e-5 * high)
        assert low - 1e-6 <= labels.min()
        assert labels.max() <= high + 1e-6
        shown = pictures_of(html, f'#r0[data-step="{frame["step"]}"] .now')
        tiles = shown.reshape(1, 8, 10, 8).swapaxes(1, 2).reshape(10, 8, 8)
        np.testing.assert_array_equal(tiles, np.rint(255 * pictures[..., 0]))
    np.testing.assert_array_equal(
        pictures_of(html, "#r0 .before"), pictures_of(html, '#r0[data-step="0"] .now')
    )
    tree, _ = page_checks.parse(html)
    last = sets[10][1]
    bars = [e for e in tree.iter("svg") if e.get("class") == "bars"]
    assert len(bars) == 10
    for i, bar in enumerate(bars):
        own = bar.find("path[@class='own']").get("d")
        x, top, end = map(float, re.fullmatch(r"M(\d+) (\S+)h8V(\S+)h-8z", own).groups())
        assert x == 10 * i + 1
        assert (top - end) / 60 * (high - low) == pytest.approx(last[i, i], abs=0.01)
        assert f"{abs(last[i, i]):.2f}" in bar.get("aria-label")


def test_curves_have_every_evaluation_and_the_levels(tmp_path):
    html, _ = page(tmp_path)
    tree, _ = page_checks.parse(html)
    (chart,) = (
        e for e in tree.iter("svg") if e.get("aria-labelledby", "").startswith("r0-accuracy")
    )
    dots = [(float(c.get("cx")), c.find("title").text) for c in chart.iter("circle")]
    left, width, last = map(float, chart.get("data-scale").split())
    for (x, told), step in zip(dots, (0, 1, 10), strict=True):
        assert x == pytest.approx(left + width * np.log(1 + step) / np.log(1 + last), abs=0.06)
        assert told.startswith(f"test, {step}: ")
    ys = [float(c.get("cy")) for c in chart.iter("circle")]
    first, solved = (
        float(e.get("y1")) for e in chart.iter("line") if "level" in e.get("class", "")
    )
    assert first == ys[0]
    share = (0.7777 - 0.5) / (0.76667 - 0.5)  # Between the first and the last evaluation.
    assert solved == pytest.approx(ys[0] + share * (ys[2] - ys[0]), abs=0.3)
    assert "Label Solve on those: 77.77" in chart.find("desc").text.replace("\u00a0", " ")


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


def test_many_classes_are_a_picture_and_the_worst_pairs(tmp_path):
    html, _ = page(tmp_path, **KINDS["many classes"])
    counts = report_facts.gather(tmp_path, {}).analysis["confusion"]
    tree, _ = page_checks.parse(html)
    (image,) = tree.iter("img")
    assert image.get("width") == "100"
    wrong = counts - np.diag(np.diag(counts))
    told = text_of(tree)
    assert f"{wrong.max()}" in told.split("The most frequent mistakes")[-1]


def test_what_differs_from_the_defaults_comes_first(tmp_path):
    html, _ = page(tmp_path, kernel__depth=2)
    tree, _ = page_checks.parse(html)
    tables = [e for e in tree.iter("table") if "differs" in (e.find("caption").text or "")]
    rows = [[cell.text for cell in tr] for tr in tables[0].find("tbody").iter("tr")]
    assert rows == [["kernel.depth", "2", "3"], ["num_steps", "10", "1000"]]


def test_another_algorithm_has_its_own_loss_apart_and_says_whether_labels_were_learned(tmp_path):
    told = text_of(page_checks.parse(page(tmp_path / "a", algorithm="dc", relabelled=False)[0])[0])
    assert "The algorithm's own loss" in told
    assert "1 per class, labels fixed" in told
    told = text_of(page_checks.parse(page(tmp_path / "b")[0])[0])
    assert "The algorithm's own loss" not in told
    assert "1 per class, labels learned" in told


@pytest.mark.parametrize("size", [10, 150])
def test_neighbours_are_those_of_the_analysis(tmp_path, size):
    html, _ = page(tmp_path, size=size, shape=(32, 32, 1))
    found = report_facts.gather(tmp_path, {}).analysis
    shown = pictures_of(html, "#r0 .real").reshape(-1, 32, 20, 32).swapaxes(1, 2)
    shown = shown.reshape(-1, 32, 32)
    tree, _ = page_checks.parse(html)
    tiles = [e for e in tree.iter("div") if e.get("class") == "tile real"]
    rows = found["nearest_rows"][report_sprites.spread(size, 400_000 // (3 * 32 * 32))]
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


def test_a_long_history_is_thinned_to_what_a_chart_can_show(tmp_path):
    make_run(tmp_path)
    history.write(tmp_path, [{"step": step, "loss": 1 / step} for step in range(1, 5001)])
    shown = [row["step"] for row in report_facts.gather(tmp_path, {}).history]
    assert len(shown) == 1000
    assert (shown[0], shown[-1]) == (1, 5000)


def test_a_folder_from_before_the_sizes_were_kept_has_a_page(tmp_path):
    make_run(tmp_path)
    told = json.loads((tmp_path / "result.json").read_text())
    del told["data"]
    (tmp_path / "result.json").write_text(json.dumps(told))
    (tmp_path / "history.csv").unlink()
    report.write(tmp_path, {})
    tree, errors = page_checks.parse((tmp_path / report.REPORT).read_text(encoding="utf-8"))
    assert errors == []
    assert "10 learned images of digits" in text_of(tree)


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


def test_an_analysis_of_another_set_is_not_shown(tmp_path):
    make_run(tmp_path)
    make_run(tmp_path, analysed=False, seed=1)
    assert report_facts.gather(tmp_path, {}).analysis is None


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


def test_a_hundred_colour_images_at_twenty_steps_fit_in_five_megabytes(tmp_path):
    """Noise, which no compression helps with."""
    steps = tuple(range(20))
    html, _ = page(tmp_path, steps=steps, size=100, shape=(32, 32, 3))
    assert len(html.encode()) < 5e6
    assert [frame["step"] for frame in data_of(html)["frames"]] == list(steps)
    assert "256 colours" in html
    shown = Image.fromarray(pictures_of(html, '#r0[data-step="19"] .now'))
    assert shown.size == (20 * 32, 5 * 32)


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (64, 64, 3), (512, 512, 3)])
@pytest.mark.parametrize("size", [1, 10, 100, 1000])
@pytest.mark.parametrize("classes", [2, 100])
def test_the_budget_holds_for_every_size(shape, size, classes):
    steps = [0, *range(1, 60)]
    plan = report_sprites.plan(steps, size, shape, classes)
    assert plan.steps[0] == 0
    assert plan.steps[-1] == 59
    assert plan.rows[0] == 0
    assert plan.rows[-1] == (0 if len(plan.rows) == 1 else size - 1)
    colours = 1 if plan.palette or shape[2] == 1 else 3
    stored = len(plan.rows) * len(plan.steps) * (shape[0] * shape[1] * colours + 2 * classes)
    assert stored <= report_sprites.BUDGET


def test_256_colours_are_near_the_picture():
    rng = np.random.default_rng(0)
    smooth = rng.random((4, 3, 3, 3)).repeat(8, axis=1).repeat(8, axis=2)
    exact, poor = (
        np.asarray(Image.open(io.BytesIO(report_sprites.encode(smooth, p))).convert("RGB"), float)
        for p in (False, True)
    )
    assert np.abs(exact - poor).mean() < 4


@pytest.mark.parametrize(("low", "high"), [(0.012, 0.033), (1e-6, 30.0), (0.4, 0.5), (2.0, 2.0)])
def test_a_logarithmic_axis_has_round_ticks_inside(low, high):
    at, ticks, text = report_axes.value_axis(low, high, percent=False, log=True)
    assert len(ticks) >= 2 or low == high
    assert all(12 - 1e-6 <= at(tick) <= 280 - 44 + 1e-6 for tick in ticks)
    assert all(float(text(tick)) == pytest.approx(tick, rel=1e-3) for tick in ticks)


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
    ("broken", "told"),
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
def test_a_broken_folder_is_told_in_one_line(tmp_path, broken, told):
    make_run(tmp_path)
    broken(tmp_path)
    with pytest.raises(UserError, match=told) as caught:
        report.write(tmp_path, {})
    assert "\n" not in str(caught.value)


def test_a_run_without_sets_or_index_still_has_a_page(tmp_path):
    make_run(tmp_path, analysed=False)
    (tmp_path / "distilled" / "index.csv").unlink()
    report.write(tmp_path, {})
    assert "no distilled sets to show" in (tmp_path / report.REPORT).read_text()
