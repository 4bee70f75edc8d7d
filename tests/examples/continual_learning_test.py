"""Class-incremental learning on the digits: its parts by themselves, and the command, short."""

import dataclasses
import json

import numpy as np
import pytest

from configs import kip_digits
from examples.continual_learning import __main__ as command
from examples.continual_learning import learners, memory, results, settings, stream
from kip_flax import architectures, data, export, kernels, krr, preprocess
from kip_flax.modes.figures import draw
from kip_flax.runs import evaluate, setup
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Stopped, Watch

SHORT = dataclasses.replace(
    settings.DIGITS,
    methods=settings.DIGITS.methods
    | {
        "kip": settings.Method(
            settings.kip_newton_digits.get_config,
            {"batch_size": 100, "num_steps": 4, "log.every_steps": 1},
        ),
    },
    network={"width": 4, "num_steps": 10},
)


@pytest.fixture(scope="module")
def whole():
    return data.load_dataset("digits")


@pytest.fixture(scope="module")
def first(whole):
    return stream.make_stream(whole, 0, "standard", held_out=False)


def test_an_order_has_every_class_once():
    orders = [stream.drawn_pairs(number, 10) for number in range(5)]
    assert orders[0] == stream.drawn_pairs(0, 10)
    assert len(set(orders)) == 5
    for pairs in orders:
        assert sorted(np.ravel(pairs)) == list(range(10))
        assert all(low < high for low, high in pairs)
    assert len(stream.drawn_pairs(0, 9)) == 4  # One class is left out.


def test_test_images_are_numbered_by_their_place_in_the_order(whole, first):
    test = first.test(num_test=0)
    assert len(test.labels) == len(whole.test_labels)
    for step, pair in enumerate(first.pairs):
        for place, number in enumerate(pair):
            own = test.images[test.labels == 2 * step + place]
            raw = whole.test_images[whole.test_labels == number]
            np.testing.assert_array_equal(own, preprocess.apply(first.fitted, raw))
    assert len(first.test(num_test=7).labels) == 35


def test_a_memory_of_other_steps_is_another_experiment(whole, tmp_path, monkeypatch):
    arguments = ["--small", f"--runs={tmp_path}"]
    bench = command.Bench(command._options(arguments), whole, None)
    cell = results.Cell("kip", 2, "krr", 0)
    bench._cells.keep(cell, bench._deciding(cell), [0.5], 1.0)
    method = settings.DIGITS.methods["kip"]
    longer = dataclasses.replace(method, fields={**method.fields, "num_steps": 7})
    monkeypatch.setitem(settings.DIGITS.methods, "kip", longer)
    with pytest.raises(UserError, match=r"kip\.num_steps was 6 and is now 7"):
        bench._cells.accuracies(cell, bench._deciding(cell))


def test_images_held_out_are_those_that_a_distillation_leaves_out(whole):
    held = stream.make_stream(whole, 1, "standard", held_out=True)
    config = kip_digits.get_config()
    config.dataset.classes, config.dataset.validation = held.pairs[2], stream.HELD_OUT
    own = setup.load(config)
    np.testing.assert_array_equal(own.test_images, held.steps[2].test_images)
    np.testing.assert_array_equal(own.train_images, held.steps[2].train_images)
    assert held.steps[2].split == "validation"


@pytest.mark.parametrize("name", settings.REAL)
def test_real_images_are_training_images_of_their_classes(whole, first, name):
    kept = memory.real_images(name, first, per_class=3)
    assert [kept.after(step) for step in range(6)] == [0, 6, 12, 18, 24, 30]
    classes = np.ravel(first.pairs)
    assert (np.bincount(kept.labels) == 3).all()
    for step in range(1, 6):
        assert (kept.labels[: kept.after(step)] < 2 * step).all()
    known = {(x.tobytes(), y) for x, y in zip(whole.train_images, whole.train_labels, strict=True)}
    pixels = np.round(255 * kept.pixels).astype(np.uint8)
    found = {(x.tobytes(), classes[y]) for x, y in zip(pixels, kept.labels, strict=True)}
    assert len(found) == 30
    assert found <= known


def written(step, name, folder):
    """A set of four images whose classes come the other way round than in the step."""
    fitted = preprocess.fit(name, step.train_images[:50])
    pixels = step.train_images[:4]
    labels = np.array([[0.2, -0.2], [-0.1, 0.1], [-0.5, 0.5], [0.7, -0.7]])
    description = export.Description(fitted, step.class_names[::-1])
    path = folder / f"{name}.npz"
    export.write_distilled(path, preprocess.apply(fitted, pixels), labels, description)
    return export.load_distilled(path), pixels


@pytest.mark.parametrize("name", ["standard", "zca_center"])
def test_distilled_sets_are_joined_as_pixels_by_the_names_of_their_classes(first, name, tmp_path):
    one, raw = written(first.steps[3], name, tmp_path)
    pixels, labels = memory.as_part(one, first.steps[3])
    np.testing.assert_allclose(pixels, raw / 255, atol=1e-4)
    assert list(labels) == [1, 0, 0, 1]
    kept = memory.joined([(pixels, np.array([0, 0, 1, 1])), (pixels[:2], np.array([1, 0]))])
    assert list(kept.labels) == [0, 0, 1, 1, 3, 2]
    assert (kept.after(1), kept.after(2)) == (4, 6)
    seen = preprocess.apply(first.fitted, kept.pixels[:4])
    np.testing.assert_allclose(seen, preprocess.apply(first.fitted, raw), atol=1e-3)


def test_a_set_whose_pixels_are_lost_is_refused(first, tmp_path):
    one, _ = written(first.steps[0], "zca_normalize", tmp_path)
    with pytest.raises(UserError, match="zca_normalize cannot be had back"):
        memory.as_part(one, first.steps[0])


@pytest.fixture
def lesson(first):
    kept, test = memory.real_images("random", first, 2), first.test(num_test=30)
    return learners.make_lesson(first, kept, test, Watch(lambda: False, Console(silent=True)))


@pytest.mark.slow
def test_krr_learns_each_step_as_if_from_scratch(lesson):
    found = learners.make_krr(settings.DIGITS)(lesson)
    kernel = kernels.make_kernel(architectures.convnet(2))
    for step, accuracy in enumerate(found, start=1):
        rows = lesson.test.labels < 2 * step
        measure = evaluate.make_evaluate(
            kernel, lesson.test.images[rows], lesson.test.labels[rows], reg=1e-6, batch_size=50
        )
        labels = krr.centered_one_hot(lesson.memory.labels[: 4 * step], 2 * step)
        assert measure(lesson.images[: 4 * step], labels)["accuracy"] == pytest.approx(accuracy)
    assert found[0] > 0.9  # Two classes of digits.
    assert found[-1] > 0.5


@pytest.mark.slow
def test_networks_learn_more_than_chance(lesson):
    setting = dataclasses.replace(settings.DIGITS, network={"width": 16, "num_steps": 100})
    learner = learners.make_networks(setting)
    found = learner(lesson)
    assert len(found) == 5
    assert found[0] > 0.7
    assert found[-1] > 0.25
    assert learner(lesson) == found


def test_a_table_has_mean_and_deviation_over_the_orders():
    cells = [results.Cell("kip", 10, "krr", order) for order in range(3)]
    values = ([0.9, 0.5], [0.8, 0.6], [0.7, 0.7])
    one = results.Cell("random", 10, "krr", 0)
    found = results.curves(dict(zip(cells, values, strict=True)) | {one: [0.5, 0.25]})
    assert found[0].mean == pytest.approx([80, 60])
    assert found[0].deviation == pytest.approx([10, 10])
    assert results.table(found).splitlines() == [
        "| images per class | learner | memory | 2 classes | 4 classes | orders |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 10 | krr | kip | 80.00 ± 10.00 | 60.00 ± 10.00 | 3 |",
        "| 10 | krr | random | 50.00 | 25.00 | 1 |",
    ]


def test_a_memory_has_its_colour_in_every_panel(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(draw, "rendered", lambda figure, _: figures.append(figure) or b"")
    names = [("krr", settings.MEMORIES), ("network", ("random", "frepo"))]
    found = [
        results.Curve(memory, 2, learner, [0], [[90.0, 80.0]])
        for learner, memories in names
        for memory in memories
    ]
    results._draw(found, "test", tmp_path / "curves.png")
    colours = [
        {each.get_label(): each.lines[0].get_color() for each in axes.containers}
        for axes in figures[0].axes
    ]
    assert len(set(colours[0].values())) == len(settings.MEMORIES)
    assert colours[1] == {name: colours[0][name] for name in ("random", "frepo")}


def test_memories_are_compared_within_each_order():
    """Orders differ by tens of points, and one memory is better by one to three in each."""
    herding = results.Curve("herding", 10, "krr", [0, 1], [[50.0, 40.0], [90.0, 70.0]])
    kip = results.Curve("kip", 10, "krr", [0, 1], [[51.0, 42.0], [91.0, 73.0]])
    others = [
        results.Curve("kip", 20, "krr", [0, 1], kip.accuracies),
        results.Curve("kip", 10, "network", [0, 1], kip.accuracies),
        results.Curve("dsa", 10, "krr", [0], [[60.0, 60.0]]),
        results.Curve("random", 10, "krr", [0, 2], kip.accuracies),
    ]
    (found,) = results.above([herding, kip, *others], "herding")
    assert (found.memory, found.per_class, found.learner) == ("kip", 10, "krr")
    assert found.entries == ["1.00 ± 0.00", "2.50 ± 0.71"]
    assert results.above([kip, *others], "herding") == []


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(command, "SETTINGS", {**settings.SETTINGS, "digits": SHORT})


@pytest.mark.slow
def test_the_small_version_goes_through_and_goes_on(short, tmp_path, capsys, monkeypatch):
    arguments = ["--small", f"--runs={tmp_path}", "--orders=1", "--memories=random,kip"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("step 4/4") == 5
    figures = json.loads((tmp_path / "figures.json").read_text())
    by_name = {(c["learner"], c["memory"]): c["mean"] for c in figures["curves"]}
    assert by_name.keys() == {(a, b) for a in ("krr", "network") for b in ("random", "kip")}
    assert np.mean(by_name["krr", "kip"]) > np.mean(by_name["krr", "random"])
    assert f"| 2 | krr | kip | {by_name['krr', 'kip'][0]:.2f} |" in printed
    assert (tmp_path / "curves.png").stat().st_size > 1000
    # A cell is lost: it alone is measured again, on the sets that are there.
    (tmp_path / "cells" / "kip_2_krr_order0.json").unlink()
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "step 4/4" not in printed
    assert printed.count("order 0,") == 1
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    # Other data do not either: the labels of two images are exchanged.
    digits = data.load_dataset("digits")
    labels = digits.train_labels.copy()
    labels[:2] = labels[1::-1]
    with monkeypatch.context() as patch:
        others = dataclasses.replace(digits, train_labels=labels)
        patch.setattr(data, "load_dataset", lambda *_: others)
        assert command.main(arguments) == 2
    assert "data (checksum) was" in capsys.readouterr().err
    # Another experiment does not mix with this one.
    assert command.main([*arguments, "--num-test=5"]) == 2
    message = capsys.readouterr().err
    assert "num_test was 0 and is now 5: take another folder" in message
    assert message.count("\n") == 1


def test_a_signal_between_two_distillations_stops_before_the_next(first, tmp_path, monkeypatch):
    """As one that comes before the steps of the first, whose own loop does not see it."""
    made, asked = [], []

    def distill(**_):
        made.append(1)
        asked.append(True)

    monkeypatch.setattr(memory, "distill", distill)
    monkeypatch.setattr(memory, "as_part", lambda *_: None)
    distiller = memory.Distiller(SHORT, "", tmp_path, held_out=False)
    with pytest.raises(Stopped):
        distiller.memory("kip", first, 2, Watch(lambda: bool(asked), Console(silent=True)))
    assert len(made) == 1


@pytest.mark.slow
def test_what_is_stopped_goes_on(short, tmp_path, capsys, monkeypatch):
    arguments = ["--small", f"--runs={tmp_path}", "--orders=1", "--memories=random,kip"]
    arguments.append("--learners=krr")
    distill = memory.distill

    def stopped(config, fields, workdir):
        """As after a signal in the second step of the stream."""
        if fields["dataset.classes"] == stream.drawn_pairs(0, 10)[1]:
            distill(config=config, fields=fields | {"num_steps": 2}, workdir=workdir)
            raise KeyboardInterrupt
        return distill(config=config, fields=fields, workdir=workdir)

    with monkeypatch.context() as patch:
        patch.setattr(memory, "distill", stopped)
        assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "stopped and saved" in printed
    assert "| 2 | krr | random |" in printed
    assert "| 2 | krr | kip |" not in printed
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "going on from the checkpoint of step 2" in printed
    assert printed.count("step 4/4") == 4
    assert "| 2 | krr | kip |" in printed


def test_a_stop_leaves_the_figures_of_all_that_is_finished(tmp_path, monkeypatch, capsys):
    arguments = ["--small", f"--runs={tmp_path}", "--orders=2", "--learners=krr"]
    arguments.append("--memories=random,herding")
    bench = command.Bench(command._options(arguments), data.load_dataset("digits"), None)
    kept = results.Cells(tmp_path / "cells")
    for order, memory_name in ((0, "random"), (1, "random"), (1, "herding")):
        cell = results.Cell(memory_name, 2, "krr", order)
        kept.keep(cell, bench._deciding(cell), [0.5 + 0.25 * order, 0.5], 1.0)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.Bench, "measure", stopped)
    assert command.main(arguments) == 0
    assert "stopped and saved" in capsys.readouterr().out
    curves = json.loads((tmp_path / "figures.json").read_text())["curves"]
    assert {curve["memory"]: curve["accuracies"] for curve in curves} == {
        "random": [[50, 50], [75, 50]],
        "herding": [[75, 50]],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--small", "--dataset=cifar10"], "--small takes the digits: leave out --dataset."),
        (["--memories=random,none"], "--memories is 'random,none': take some of random, herding"),
        (["--learners="], "--learners is '': take some of krr, network"),
        (["--per-class=ten"], "--per-class is 'ten': take numbers above 0"),
        (["--per-class=0"], "--per-class is '0'"),
        (["--orders=0"], "--orders is at least 1"),
        (["--dataset=svhn"], "invalid choice"),
        (["--nothing"], "unrecognized arguments"),
        (["--data=."], "set dataset.data_dir"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments, message, tmp_path, capsys):
    assert command.main([f"--runs={tmp_path}/runs", *arguments]) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ")
    assert message in output
    assert output.count("\n") == 1
    assert not (tmp_path / "runs").exists()
