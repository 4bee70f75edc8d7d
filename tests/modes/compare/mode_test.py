"""A comparison from runs to the page: rows, marks, ties, preprocessing, resume, mistakes."""

import csv
import dataclasses
import html.parser
import json
import re
import shutil

import made_transfers
import numpy as np
import pytest
from whole_runs import label_solve, small

from kip_flax import config as config_lib
from kip_flax import export
from kip_flax.modes.compare import entries, table
from kip_flax.modes.compare.entries import Made
from kip_flax.modes.compare.mode import compare
from kip_flax.modes.train import mode as train
from kip_flax.modes.transfer import contest, rows
from kip_flax.networks.named import is_kernel
from kip_flax.runs import setup
from kip_flax.runtime.errors import UserError

NETWORKS = ("krr", "krr:fc:2", "fc:1")


def make_config(**changes):
    config = small()
    fields = {
        "recipe": "kip",
        "networks": NETWORKS,
        "width": 16,
        "num_steps": 30,
        "every_steps": 10,
        "seeds": 2,
        "ntk_inputs": 10,
        "baselines": ("random", "herding"),
    }
    config.transfer.update(fields | changes)
    config_lib.validate(config)
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory, quick_kernels):
    """KIP of 10 whitened images, KIP of 10 standardised ones, Label Solve of 20."""
    folder = tmp_path_factory.mktemp("runs")
    train.train_and_evaluate(small(preprocess="zca_normalize"), str(folder / "zca"))
    train.train_and_evaluate(small(), str(folder / "kip"))
    train.train_and_evaluate(label_solve(), str(folder / "ls"))
    return folder


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("compared")
    paths = [str(runs / name) for name in ("zca", "kip", "ls")]
    return workdir, compare(make_config(), paths, str(workdir))


def find(lines, method, size, preprocess="standard"):
    (line,) = (
        x for x in lines if (x.made.method, x.size, x.preprocess) == (method, size, preprocess)
    )
    return line


def test_every_set_is_measured_in_its_own_preprocessing(runs, compared):
    _, lines = compared
    kinds = [(x.made.method, x.made.labels, x.size, x.preprocess) for x in lines]
    drawn = [
        (f"{name} real images", "fixed", size, preprocess)
        for size, preprocess in ((10, "standard"), (20, "standard"), (10, "zca_normalize"))
        for name in ("random", "herding")
    ]
    kip, solved = ("KIP", "learned", 10), ("Label Solve", "solved", 20, "standard")
    assert sorted(kinds) == sorted([(*kip, "zca_normalize"), (*kip, "standard"), solved, *drawn])
    for name, line in (
        ("zca", find(lines, "KIP", 10, "zca_normalize")),
        ("kip", find(lines, "KIP", 10)),
        ("ls", find(lines, "Label Solve", 20)),
    ):
        result = json.loads((runs / name / "result.json").read_text())
        assert set(line.figures) == set(NETWORKS)
        # The run measured the same set on the same test images with the same kernel.
        accuracy = result["evaluations"][-1]["accuracy"]
        assert line.figures["krr"]["mean"] == pytest.approx(accuracy, abs=1e-6)
        assert line.made.seconds == result["seconds"]
        assert line.bytes == line.size * (8 * 8 + 10) * 4
        assert line.images_per_class == line.size / 10
        assert line.pictures.shape == (line.size, 8, 8, 1)
    assert find(lines, "KIP", 10).made.budget == "12 steps of 30, reg 1e-06"
    assert find(lines, "random real images", 10).figures["krr"]["std"] > 0


def test_the_files_say_what_the_table_says(compared):
    workdir, lines = compared
    text = (workdir / "comparison.md").read_text()
    with open(workdir / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) == text.count("\n| 1 |") + text.count("\n| 2 |")
    for row in rows:
        sizes = 10 * int(row["images_per_class"])
        line = find(lines, row["method"], sizes, row["preprocess"])
        for network in NETWORKS:
            assert float(row[f"{network} mean"]) == pytest.approx(
                line.figures[network]["mean"], abs=1e-5
            )
            assert row[f"{network} mark"] == line.marks.get(network, "")
            assert f"{100 * line.figures[network]['mean']:.2f}" in text
    for size in ("1", "2"):
        best = [r for r in rows if r["images_per_class"] == size and r["krr mark"] == "best"]
        means = [float(r["krr mean"]) for r in rows if r["images_per_class"] == size]
        assert [float(r["krr mean"]) for r in best] == [max(means)]


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.images, self.rows = [], [], 0

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
        self.rows += tag == "tr"
        if tag == "img":
            self.images.append(attributes)
        if tag not in ("img", "link", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone(compared):
    workdir, lines = compared
    page = Page()
    text = (workdir / "comparison.html").read_text()
    page.feed(text)
    assert page.open == []
    assert page.rows == 1 + len(lines)
    assert len(page.images) == len(lines)
    assert all(image["alt"] and image["width"] and image["height"] for image in page.images)
    assert "http" not in text
    assert text.count('class="best"') == 2 * len(NETWORKS)


def test_an_interrupted_comparison_goes_on(runs, compared, tmp_path):
    """Of the whole one the first run alone, stopped in a training; then one more set is added."""
    _, lines = compared
    config, paths = make_config(baselines=()), [str(runs / "zca"), str(runs / "kip")]
    with pytest.MonkeyPatch.context() as patch:
        made_transfers.Stop(patch, at=2)
        (stopped,) = compare(config, paths[:1], str(tmp_path))
        assert set(stopped.figures) == {"krr", "krr:fc:2"}
        assert (tmp_path / ".unfinished" / "checkpoints").is_dir()
    (line,) = compare(config, paths[:1], str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "network_row", None)  # Nothing is trained again.
        config.transfer.networks = NETWORKS[:2]
        both = compare(config, paths, str(tmp_path))
    expected = find(lines, "KIP", 10, "zca_normalize")
    assert line.figures["fc:1"]["accuracies"] == expected.figures["fc:1"]["accuracies"]
    assert [x.preprocess for x in both] == ["zca_normalize", "standard"]
    assert not (tmp_path / ".unfinished").exists()


def line(method, mean, std=None, size=10, num_test=100, network="krr"):
    row = {"mean": mean, "std": std, "accuracies": [mean]}
    pictures = np.zeros((size, 2, 2, 1))
    return table.Line(
        Made(method), "standard", size / 10, size, 1, {network: row}, pictures, num_test
    )


def test_a_difference_inside_a_deviation_is_a_tie():
    """sqrt(0.8 * 0.2 / 100) = 0.04: of 100 test images, 80 right and 77 right are the same."""
    lines = [line("a", 0.80), line("b", 0.77), line("c", 0.75), line("d", 0.1, size=20)]
    table.mark(lines, ("krr",))
    assert [x.marks.get("krr") for x in lines] == ["best", "tie", None, "best"]
    seeds = [line("a", 0.80, 0.01), line("b", 0.77, 0.02), line("c", 0.77, 0.05)]
    table.mark(seeds, ("krr",))
    assert [x.marks.get("krr") for x in seeds] == ["best", None, "tie"]
    assert table.accuracy(lines[0], "krr") == "80.00 (± 4.00)"
    assert table.accuracy(seeds[0], "krr") == "80.00 ± 1.00"
    table_rows = table.markdown(seeds, ("krr",), "digits").splitlines()
    assert "| **80.00 ± 1.00** |" in table_rows[2]
    assert "| 77.00 ± 2.00 |" in table_rows[3]
    assert "| ≈ 77.00 ± 5.00 |" in table_rows[4]


def test_a_training_that_diverged_is_in_the_table(runs, tmp_path):
    (path,) = (runs / "kip" / "distilled").glob("*_ckpt12.npz")
    config = make_config(networks=("krr", "fc:1"), lr_factor=(1e4,), baselines=())
    with pytest.raises(UserError, match=r"fc:1 on 10 .*: the training diverged"):
        compare(config, [str(path)], str(tmp_path))
    row = (tmp_path / "comparison.md").read_text().splitlines()[2]
    assert "| diverged |" in row
    kept = next(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert (kept["fc:1 mean"], kept["fc:1 std"], kept["fc:1 mark"]) == ("", "", "diverged")
    assert float(kept["krr mean"]) > 0.3
    other = str(path.with_name(path.name.replace("ckpt12", "ckpt5")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "network_row", None)
        config.transfer.networks = ("krr",)
        compare(config, [other, str(path)], str(tmp_path))  # Where it is not asked for.


def test_published_figures_stand_beside_ours_with_their_budget():
    lines = [line("DC", 0.9), line("KIP", 0.9), line("DC", 0.9, size=100), line("DC", 0.9, size=70)]
    for one in lines:
        one.made = dataclasses.replace(one.made, algorithm=one.made.method.lower())
    published = [table.published_words(x, "mnist") for x in lines]
    assert published[:3] == ["network 91.7", "kernel 97.3, network 90.1*", "network 97.4"]
    assert published[3] == table.published_words(line("herding", 0.9), "mnist")  # None.
    notes = "\n".join(table.notes(lines, "mnist"))
    assert "Zhao et al., ICLR 2021, ConvNet-3; 1 per class: 1,000 steps" in notes
    assert "10 per class: 10,000 steps, 256 real images of a class each, 50 epochs" in notes
    assert "not read at the source" in notes
    assert table.notes([line("DC", 0.9)], "digits") == []


def test_what_a_file_does_not_say_is_left_open(runs, tmp_path):
    (path,) = (runs / "kip" / "distilled").glob("*_ckpt12.npz")
    plain = tmp_path / "ConvNet_ssize10_nozca_l_noaug_ckpt99.npz"
    read = export.load_distilled(path)
    np.savez(plain, images=read.images, labels=read.labels)
    entry = entries.read(str(plain), "zca")
    assert (entry.made.method, entry.made.labels) == (plain.stem, "")
    assert (entry.made.seconds, entry.made.budget) == (None, "")
    first = entries.read(str(path.with_name(path.name.replace("ckpt12", "ckpt0"))), "none")
    assert (first.made.method, first.made.seconds) == ("initial images", None)
    solved = read.provenance | {"step": 0}
    solved["config"] = solved["config"] | {"algorithm": "kip_newton"}
    assert entries._made(path, solved).title == "initial images, labels solved"
    # Algorithms of one name are told apart; the published figures are those of the name.
    made = entries._made(path, solved | {"step": 12})
    assert (made.title, made.method) == ("KIP, Gauss-Newton, labels solved", "KIP")
    # Tables of older comparisons know the set by this.
    entry = dataclasses.replace(entry, made=made, distilled=read)
    assert re.fullmatch(r"KIP, labels solved \([0-9a-f]{8}\)", entry.key)
    # A set that the run went beyond took less time than its result says.
    (early,) = (runs / "kip" / "distilled").glob("*_ckpt5.npz")
    assert entries.read(str(early), "none").made.seconds is None


def test_the_preprocessing_of_the_command_belongs_to_sets_that_record_none(runs, tmp_path):
    (path,) = (runs / "kip" / "distilled").glob("*_ckpt12.npz")
    read = export.load_distilled(path)
    np.savez(tmp_path / "mine.npz", images=read.images, labels=read.labels)
    names = ("standard", "zca_normalize")
    mine, known = (
        [entries.read(str(each), name) for name in names] for each in (tmp_path / "mine.npz", path)
    )
    assert [entry.preprocess for entry in mine] == list(names)
    assert mine[0].key != mine[1].key
    assert [entry.preprocess for entry in known] == [read.preprocess_name] * 2
    assert known[0].key == known[1].key


def test_a_folder_stands_for_the_last_set_of_its_own_run(runs, tmp_path):
    again = shutil.copytree(runs / "kip", tmp_path / "kip")
    (last,) = again.glob("distilled/*_ckpt12.npz")
    shutil.copy(last, last.with_name(last.name.replace("ckpt12", "ckpt600")))  # Of a run before.
    assert entries.read(str(again), "none").made.file == str(last)
    (again / "config.json").unlink()
    assert entries.read(str(again), "none").made.file.endswith("_ckpt600.npz")


def test_a_comparison_says_what_it_measures_with_and_on(runs, tmp_path, capsys):
    config = make_config(networks=("krr", "krr:fc:2"), baselines=())
    config.dataset.validation, config.kernel.depth = 0.2, 3
    compare(config, [str(runs / "kip")], str(tmp_path))
    output = capsys.readouterr().out
    assert "kernel    krr is by fc, depth 3, ntk; reg 1e-06." in output
    assert "measured with kernel.depth=1; here kernel.depth=3." in output
    assert "kernel    krr:fc:2 is by fc, depth 2, ntk; reg 1e-06" in output
    for name in ("comparison.md", "comparison.html"):
        text = (tmp_path / name).read_text()
        assert "krr:fc:2 is by fc, depth 2, ntk; reg 1e-06." in text
        assert "measured with kernel.depth=1; here kernel.depth=3." in text
        assert "Measured on held-out training images" in text


def test_mistakes_are_reported_in_one_line(runs, tmp_path):
    kip = str(runs / "kip")
    copy = shutil.copytree(runs / "kip", tmp_path / "copy")
    (tmp_path / "empty").mkdir()
    for paths, config, message in (
        ([kip, str(copy)], make_config(), "hold the same set: name each once in --compare"),
        ([str(tmp_path / "empty")], make_config(), "holds no distilled set"),
        ([str(runs)], make_config(), "holds no distilled set"),  # It holds several runs.
        ([str(tmp_path / "none.npz")], make_config(), "does not exist"),
        ([kip], make_config(baselines=("initial",)), "a comparison draws random, kmeans, herding"),
        ([kip], make_config(ladder=(20, 30)), "transfer.ladder is for --mode=transfer"),
        ([kip], make_config(networks=("krr:convnet:4",)), "8x8 pixels are too small for 4 pooling"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            compare(config, paths, str(tmp_path / "out"))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="unknown kernel krr:vgg: write krr, or for example"):
        make_config(networks=("krr:vgg",))


def test_a_class_too_small_for_a_coreset_is_reported_before_any_training(
    runs, tmp_path, digits, monkeypatch
):
    """Its smaller set would always be the best of its size."""
    rows = np.flatnonzero((digits.train_labels != 3) | (np.arange(len(digits.train_labels)) < 2))
    images, labels = digits.train_images[rows], digits.train_labels[rows]
    few = dataclasses.replace(digits, train_images=images, train_labels=labels)
    monkeypatch.setattr(setup, "load", lambda _: few)
    with pytest.raises(UserError, match=r"^herding takes 1 images of every class, and one has"):
        compare(make_config(baselines=("herding",)), [str(runs / "kip")], str(tmp_path / "out"))
    assert not (tmp_path / "out" / "comparison.json").exists()


def test_another_recipe_in_the_folder_is_refused(runs, compared):
    workdir, _ = compared
    config = make_config(seeds=3)
    with pytest.raises(UserError, match=r"another comparison: transfer.seeds was 2 and is now 3"):
        compare(config, [str(runs / "kip")], str(workdir))


def test_kernels_are_those_of_their_names():
    config = make_config()
    own, other = (contest.kernel_config(config, n).kernel for n in ("krr", "krr:convnet:2"))
    assert (own.architecture, own.depth) == ("fc", 1)
    assert (other.architecture, other.depth) == ("convnet", 2)
    assert (config.kernel.architecture, config.kernel.depth) == ("fc", 1)
    assert not is_kernel("kernel")
