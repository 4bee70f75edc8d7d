"""The page of a comparison whose numbers are known."""

import base64
import io

import numpy as np
import page_checks
import pytest
from PIL import Image

from kip_flax.modes.compare import page as compare_page
from kip_flax.modes.compare import table as compare_table
from kip_flax.modes.compare.entries import Made

HOSTILE = "<b>&\"'</b>"


def line(method, mean, std, size, pictures):
    return compare_table.Line(
        made=Made(method, labels="learned"),
        preprocess="standard",
        images_per_class=size / 10,
        size=size,
        bytes=1,
        figures={"krr": {"mean": mean, "std": std, "accuracies": [mean]}},
        pictures=pictures,
        num_test=100,
    )


@pytest.fixture
def lines():
    rng = np.random.default_rng(0)
    made = [
        line("KIP", 0.8, None, 10, rng.random((10, 8, 8, 1))),
        line(HOSTILE, 0.79, 0.02, 10, rng.random((10, 4, 8, 3))),
        line("DC", 0.5, 0.01, 10, rng.random((10, 8, 8, 1))),
        line("DSA", 0.9, 0.01, 120, rng.random((120, 8, 8, 1))),
    ]
    compare_table.mark(made, ("krr",))
    return made


@pytest.fixture
def tree(lines):
    html = compare_page.page(lines, ("krr",), [f"A note on {HOSTILE}."], f"digits {HOSTILE}")
    tree, errors = page_checks.parse(html)
    assert errors == []
    return tree


def test_names_from_elsewhere_are_text(tree):
    assert tree.find("head/title").text == f"Distilled sets of digits {HOSTILE}, compared"
    assert list(tree.iter("b")) == []
    assert f"A note on {HOSTILE}." in [p.text for p in tree.iter("p")]
    assert f"{HOSTILE}, labels learned: 10 images" in [
        image.get("alt").replace(", 1 per class", "") for image in tree.iter("img")
    ]


def test_the_best_and_ties_are_marked_in_words(tree):
    rows = [["".join(cell.itertext()) for cell in row] for row in tree.find(".//tbody")]
    assert {row[1]: row[4] for row in rows} == {
        "KIP": "80.00 (± 4.00) best",
        HOSTILE: "≈ 79.00 ± 2.00 tie",
        "DC": "50.00 ± 1.00",
        "DSA": "90.00 ± 1.00 best",
    }
    best = [cell for cell in tree.iter("td") if cell.get("class") == "best"]
    assert len(best) == 2


def test_pictures_are_on_one_sheet_of_ten_in_a_row(lines, tree):
    first, *_, last = tree.iter("img")
    sheet = Image.open(io.BytesIO(base64.b64decode(first.get("src").partition(",")[2])))
    assert sheet.size == (10 * 9 - 1, 8)
    assert (int(first.get("width")), int(first.get("height"))) == (3 * 89, 3 * 8)
    shown = np.asarray(sheet.convert("L"))[:, :8]
    np.testing.assert_array_equal(shown, np.rint(255 * lines[0].pictures[0, ..., 0]))
    assert "the first 100 of 120" in [*tree.iter("figcaption")][-1].text
    assert last.get("alt").endswith(": 100 images")
