"""Figures of runs whose pictures are known: what is drawn is what the files hold."""

import io
import json
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from command import run as command
from made_runs import make_run
from PIL import Image

from kip_flax import export, preprocess
from kip_flax.modes.figures import draw
from kip_flax.modes.figures.mode import read_run, rows_of, write_figures
from kip_flax.modes.transfer import ladder
from kip_flax.runtime.errors import UserError

STEPS = (0, 1, 10)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def drawn(axis):
    (image,) = axis.get_images()
    return np.asarray(image.get_array())


def test_rows_are_natural_images_and_what_each_run_made_of_them(tmp_path):
    learned = make_run(tmp_path / "a", steps=STEPS)
    fixed = make_run(tmp_path / "b", steps=STEPS, support__learn_labels=False)
    runs = [read_run(tmp_path / name) for name in ("b", "a")]
    figure = draw.rows_figure(rows_of(runs), tuple("0123456789"))
    assert texts(figure) == [
        "natural images\n50.00 %",
        "KIP, fixed labels\n76.67 %",
        "KIP, learned labels\n76.67 %",
    ]
    axes = np.array(figure.axes).reshape(3, 10)
    assert [axis.get_title() for axis in axes[0]] == list("0123456789")
    for row, sets in zip(axes, (learned[0], fixed[10], learned[10]), strict=True):
        for axis, picture in zip(row, sets[0], strict=True):
            np.testing.assert_allclose(drawn(axis), picture[..., 0], atol=1e-5)


def test_runs_from_other_images_have_natural_rows_of_their_own(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        make_run(tmp_path / name, seed=seed)
    rows = rows_of([read_run(tmp_path / name) for name in ("a", "b")])
    assert [row.step for row in rows] == [0, 0, 10, 10]


def test_names_are_no_mathematics(tmp_path):
    make_run(tmp_path, names=("$5_$10", *"bcdefghij"))
    figure = draw.rows_figure(rows_of([read_run(tmp_path)]), ("$5_$10", *"bcdefghij"))
    assert draw.rendered(figure, "png").startswith(b"\x89PNG")


def test_one_image_per_class_of_many(tmp_path):
    sets = make_run(tmp_path, size=60, names=tuple(f"c{n}" for n in range(30)))
    figure = draw.rows_figure(rows_of([read_run(tmp_path)]), tuple(f"c{n}" for n in range(30)))
    axes = np.array(figure.axes).reshape(2, 10)
    assert [axis.get_title() for axis in axes[0]][::9] == ["c0", "c29"]
    for column, number in ((0, 0), (9, 29)):
        np.testing.assert_allclose(
            drawn(axes[1, column]), sets[10][0][2 * number, ..., 0], atol=1e-5
        )


@pytest.mark.parametrize("preprocessing", ["standard", "zca_normalize"])
def test_a_grid_is_inverted_and_says_what_is_lost(tmp_path, preprocessing):
    shape = (6, 5, 3)
    sets = make_run(tmp_path, size=20, shape=shape, preprocessing=preprocessing)
    figure = draw.grid_figure(read_run(tmp_path).sets[-1])
    (axis,) = figure.axes
    sheet = drawn(axis)
    assert sheet.shape == (2 * 7 - 1, 10 * 6 - 1, 3)
    tile, expected = sheet[7:13, 6:11], sets[10][0][11]
    assert "KIP, learned labels, 20 images: 76.67 %" in texts(figure)
    assert any("norm of each image" in text for text in texts(figure)) is (
        preprocessing == "zca_normalize"
    )
    if preprocessing == "standard":
        np.testing.assert_allclose(tile, expected, atol=1e-5)
    else:  # Up to each image's own mean and norm.
        inside = (tile > 0) & (tile < 1)
        assert np.corrcoef(tile[inside], expected[inside])[0, 1] > 0.999


def test_the_animation_has_a_frame_for_every_step(tmp_path):
    sets = make_run(tmp_path, steps=STEPS)
    gif = Image.open(io.BytesIO(draw.animation(read_run(tmp_path).sets)))
    assert gif.n_frames == 3
    pauses = []
    for number, step in enumerate(STEPS):
        gif.seek(number)
        pauses.append(gif.info["duration"])
        pixels = np.asarray(gif.convert("L"), float)
        scale = 48 // 8
        centre = pixels[26 + scale // 2 :: scale, scale // 2 :: scale][:8]
        for image in (0, 9):
            shown = centre[:, 9 * image : 9 * image + 8]
            np.testing.assert_allclose(shown, 255 * sets[step][0][image, ..., 0], atol=4)
    assert pauses == [500, 500, 2500]


def test_files_are_whole_and_the_same_again(tmp_path, capsys):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", algorithm="ls", steps=(0, 4), moved=False)
    both = f"{tmp_path / 'a'},{tmp_path / 'b'}"
    written = write_figures(both)
    names = {str(path.relative_to(tmp_path)) for path in written}
    kinds = ("images.png", "images.svg", "rows.png", "rows.svg", "learning.gif")
    assert names == {f"{run}/figures/{kind}" for run in "ab" for kind in kinds} | {
        "a/figures/curve.png",  # The other one has two evaluations.
        "a/figures/curve.svg",
        "figures/rows.png",
        "figures/rows.svg",
    }
    output = capsys.readouterr().out
    for path in written:
        assert f"figure  {path}" in output
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
        else:
            Image.open(path).verify()
    before = {path: path.read_bytes() for path in written}
    assert write_figures(both) == written
    assert before == {path: path.read_bytes() for path in written}


def test_the_curve_has_the_evaluations_and_marks_the_set_that_was_taken():
    rows = [
        {"step": 0, "accuracy": 0.5, "mse": 0.03},
        {"step": 4, "accuracy": 0.75, "mse": 0.01},
        {"step": 9, "accuracy": 0.7, "mse": 0.02},
    ]
    figure = draw.curve_figure(rows, "validation", chosen=4)
    expected = {
        "accuracy on validation images, %": [[0, 50], [4, 75], [9, 70]],
        "mse on validation images": [[0, 0.03], [4, 0.01], [9, 0.02]],
    }
    for axis in figure.axes:
        line, mark = axis.get_lines()
        points = expected.pop(axis.get_title())
        np.testing.assert_allclose(line.get_xydata(), points)
        np.testing.assert_allclose(mark.get_xydata(), points[1:2])
    assert not expected


def test_networks_have_a_curve_beside_the_kernel():
    def reached(mean, on="held_out", std=0.02):
        return {"network": "a", "on": on, "mean": mean, "std": std}

    rows = [
        {"step": 0, "accuracy": 0.5, "mse": 0.03, "networks": [reached(0.2)]},
        {"step": 4, "accuracy": 0.75, "mse": 0.01, "networks": [reached(None, std=None)]},
        {"step": 9, "accuracy": 0.7, "mse": 0.02, "networks": [reached(0.4), reached(0.1, "test")]},
    ]
    accuracy, error = draw.curve_figure(rows, "test").axes
    kernel, networks, *_ = accuracy.get_lines()
    np.testing.assert_allclose(kernel.get_xydata(), [[0, 50], [4, 75], [9, 70]])
    np.testing.assert_allclose(networks.get_xydata(), [[0, 20], [9, 40]])
    labels = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert labels == ["kernel, test images", "a, held-out images"]
    assert len(error.get_lines()) == 1


def row(kind, size, mean, std=0.01, network="krr"):
    return {"set": kind, "size": size, "network": network, "mean": mean, "std": std}


LADDER = [row("distilled", 10, 0.5), row("random", 10, 0.3, 0.02), row("random", 100, 0.6, None)]


def test_the_worth_ladder_has_rungs_and_the_crossing(tmp_path):
    (tmp_path / "transfer.json").write_text(json.dumps({"rows": LADDER}))
    figure = draw.worth_figure(ladder.ladders(LADDER))
    (axis,) = figure.axes
    real, level, dot = (
        axis.get_lines()[0],
        *[
            line
            for line in axis.get_lines()
            if line.get_linestyle() == "--" or line.get_marker() == "o"
        ],
    )
    np.testing.assert_allclose(real.get_xydata(), [[10, 30], [100, 60]])
    crossing = 10 ** (1 + (0.5 - 0.3) / (0.6 - 0.3))
    np.testing.assert_allclose(level.get_xydata(), [[10, 50], [crossing, 50]])
    np.testing.assert_allclose(dot.get_xydata(), [[10, 50]])
    (legend,) = axis.get_legend().get_texts()
    assert f"worth {crossing:.0f} real ones" in legend.get_text()
    assert axis.get_xscale() == "log"
    assert math.isclose(axis.get_xticks()[-1], 100)
    written = write_figures(str(tmp_path))
    assert [path.name for path in written] == ["worth.png", "worth.svg"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds no run"),
        (
            lambda folder: (folder / "transfer.json").write_text(json.dumps({"rows": LADDER[:2]})),
            "no ladder",
        ),
        (lambda folder: (folder / "transfer.json").write_text("{"), "cannot read"),
        (lambda folder: (folder / "transfer.json").write_text("[1]"), "cannot read"),
        (
            lambda folder: (make_run(folder), (folder / "distilled" / "index.csv").unlink()),
            "no distilled sets",
        ),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        write_figures(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_transfer_in_the_folder_of_a_run_hides_nothing(tmp_path):
    make_run(tmp_path, steps=STEPS)
    (tmp_path / "transfer.json").write_text(json.dumps({"rows": []}))
    names = {path.name for path in write_figures(str(tmp_path))}
    assert "rows.png" in names
    assert "worth.png" not in names
    (tmp_path / "transfer.json").write_text(json.dumps({"rows": LADDER}))
    both = {path.name for path in write_figures(str(tmp_path))}
    assert both == names | {"worth.png", "worth.svg"}


def test_a_mistake_is_found_before_the_first_file(tmp_path):
    make_run(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="holds no run"):
        write_figures(f"{tmp_path / 'a'},{tmp_path / 'b'}")
    assert not (tmp_path / "a" / "figures").exists()


def test_runs_of_different_data_do_not_go_into_one_figure(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", shape=(6, 6, 1))
    make_run(tmp_path / "c", names=tuple("abcdefghij"))
    for other in ("b", "c"):
        runs = [read_run(tmp_path / name) for name in ("a", other)]
        with pytest.raises(UserError, match="different data"):
            rows_of(runs)
        with pytest.raises(UserError, match="different data"):
            write_figures(f"{tmp_path / 'a'},{tmp_path / other}")
        assert not list(tmp_path.rglob("figures"))


def test_images_of_each_row_are_those_of_its_own_classes(tmp_path):
    """A set that was made elsewhere need not be sorted by class."""
    make_run(tmp_path / "a")
    sets = make_run(tmp_path / "b", seed=1)
    order = np.roll(np.arange(10), 3)
    for path in (tmp_path / "b" / "distilled").glob("*_ckpt*.npz"):
        own = export.load_distilled(path)
        fitted = preprocess.from_arrays(own.preprocess)
        provenance = own.provenance | {"first_classes": np.arange(10)[order].tolist()}
        about = export.Description(fitted, own.class_names, own.kernel, provenance)
        export.write_distilled(path, own.images[order], own.labels[order], about)
    runs = [read_run(tmp_path / name) for name in ("a", "b")]
    figure = draw.rows_figure(rows_of(runs), tuple("0123456789"))
    axes = np.array(figure.axes).reshape(4, 10)
    for row, step in ((1, 0), (3, 10)):
        for axis, picture in zip(axes[row], sets[step][0], strict=True):
            np.testing.assert_allclose(drawn(axis), picture[..., 0], atol=1e-5)


@pytest.mark.parametrize(
    ("init", "name"), [("noise", "noise"), ("x.npz", "images of another set"), ("real", "natural")]
)
def test_the_first_images_have_the_name_of_what_they_were(tmp_path, init, name):
    make_run(tmp_path, support__init=init)
    assert read_run(tmp_path).sets[0].name.startswith(name)


def test_both_modes_work_from_the_command_line_without_a_configuration(tmp_path):
    make_run(tmp_path)
    for mode, path in (("figures", "figures/rows.svg"), ("report", "report.html")):
        done = command(f"--mode={mode}", f"--workdir={tmp_path}")
        assert (done.returncode, done.stderr) == (0, "")
        assert str(tmp_path / path) in done.stdout
    missing = command("--mode=report")
    assert missing.returncode == 2
    assert missing.stderr == "error: --mode=report needs --workdir=PATH.\n"
