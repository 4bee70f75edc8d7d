"""The search of architectures: ranks by hand, rows that are kept, and the small version."""

import dataclasses
import functools
import json
import re
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import frepo_digits
from examples.architecture_search import __main__ as command
from examples.architecture_search import finite, images, infinite, ranks, space
from examples.architecture_search.convnets import ConvNets, choose
from examples.architecture_search.kept import Kept
from examples.architecture_search.space import ConvNet, Distillation, Infinite
from kip_flax import export, kernels, preprocess
from kip_flax.networks import build, train
from kip_flax.runtime.errors import UserError

FINITE = (ConvNet(1, 8, "sigmoid", "none", "avg"), ConvNet(1, 8, "relu", "none", "max"))
SHORT = dataclasses.replace(
    space.SMALL,
    grids={
        "finite": FINITE,
        "ntk": tuple(Infinite("fc", depth, "ntk", 0.1) for depth in (1, 2)),
        "nngp": tuple(Infinite("fc", depth, "nngp", 0.1) for depth in (1, 2)),
    },
    sets=space.SMALL.sets | {"finite": Distillation(frepo_digits.get_config, {"num_steps": 30})},
)


def made_rows(held_out, test):
    """Rows of networks with these accuracies on each set, and on the test images."""
    names = (*images.PROXIES, images.WHOLE)
    rows = {}
    for number, accuracies in enumerate(zip(*(held_out[name] for name in names), strict=True)):
        row = {
            n: {"held_out": a, "score": a, "seconds": 2.0}
            for n, a in zip(names, accuracies, strict=True)
        }
        row["whole"] |= {"test": test[number], "test_score": test[number]}
        rows[f"network {number}"] = row | {"compiling": 1.0}
    return rows


def test_ranks_are_those_that_a_hand_computes():
    held_out = {
        "distilled": [0.1, 0.2, 0.3, 0.5, 0.4],  # One pair is the wrong way round.
        "random": [0.5, 0.4, 0.3, 0.2, 0.1],
        "herding": [0.1, 0.3, 0.2, 0.5, 0.4],
        "whole": [0.1, 0.2, 0.3, 0.4, 0.4],
    }
    rows = made_rows(held_out, test=[0.90, 0.91, 0.92, 0.93, 0.94])
    found = {one.by: one for one in ranks.rankings(rows)}
    # 1 - 6 sum d^2 / (n (n^2 - 1)): of one pair sum d^2 is 2, of two 4, of all reversed 40.
    expected = {"distilled": 0.9, "random": -1.0, "herding": 0.8, "whole": 9.5 / np.sqrt(95)}
    assert {by: one.spearman for by, one in found.items()} == pytest.approx(expected)
    # The best is the best on held-out images, and its test accuracy comes from the whole.
    assert (found["distilled"].best, found["distilled"].test) == ("network 3", pytest.approx(93))
    assert found["random"].test == pytest.approx(90)
    assert found["random"].seconds == 10
    lines = ranks.table("Made", rows).splitlines()
    assert re.fullmatch(
        r"\| distilled \| 0\.90 ± 0\.\d\d \| network 3 \| 93\.00 \| 10 \|", lines[2]
    )
    assert lines[3].startswith("| random | -1.00 ± 0.00 |")
    assert "90.00 to 94.00 (network 4), mean 92.00" in lines[-1]


def test_the_deviation_of_a_rank_correlation_is_that_of_other_networks():
    """Of networks from one distribution, the rank correlations of many grids deviate as much."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((300, 48))
    second = first + rng.standard_normal((300, 48))
    found = [ranks._spearman(list(a), list(b)) for a, b in zip(first, second, strict=True)]
    estimated = [
        ranks._deviation(list(a), list(b)) for a, b in zip(first[:40], second[:40], strict=True)
    ]
    assert np.mean(estimated) == pytest.approx(np.std(found), rel=0.15)


def test_a_regression_that_failed_is_not_the_best():
    held_out = {name: [0.1, 0.2, 0.3] for name in ("random", "herding", "whole")}
    rows = made_rows(held_out | {"distilled": [np.nan, 0.2, 0.1]}, test=[0.9, 0.8, 0.7])
    found = {one.by: one for one in ranks.rankings(rows)}
    assert (found["distilled"].best, found["whole"].best) == ("network 1", "network 2")
    assert found["distilled"].spearman is None  # In JSON a NaN would be no number.
    assert ranks.table("Made", rows).splitlines()[2].startswith("| distilled | - | network 1 |")


def test_ranks_of_a_group_are_those_of_its_networks_alone():
    ascending = [0.1, 0.2, 0.3, 0.4, 0.5]
    held_out = {
        "distilled": [0.1, 0.2, 0.3, 0.0, 0.4],
        "random": [0.3, 0.2, 0.1, 0.4, 0.5],
        "herding": ascending,
        "whole": ascending,
    }
    rows = made_rows(held_out, test=ascending)
    for row in rows.values():  # Errors order the networks the other way round.
        row["herding"]["score"] = -row["herding"]["held_out"]
    first = ("network 0", "network 1", "network 2")
    lines = ranks.table_of_groups("Made", rows, {"first": first}).splitlines()
    # 1 - 6 sum d^2 / (n (n^2 - 1)): of all, sum d^2 is 12 by the distilled set, 8 by drawn images.
    assert lines == [
        "| Made | ranked by | distilled | random | herding |",
        "|---|---|---|---|---|",
        "| all, 5 | error | 0.40 | 0.60 | -1.00 |",
        "| all, 5 | accuracy | 0.40 | 0.60 | 1.00 |",
        "| first, 3 | error | 1.00 | -1.00 | -1.00 |",
        "| first, 3 | accuracy | 1.00 | -1.00 | 1.00 |",
    ]


def test_groups_are_the_convnets_and_the_kernels_of_one_deviation():
    digits = space.groups(space.DIGITS.grids["ntk"])
    assert {title: len(names) for title, names in digits.items()} == {
        "ConvNets": 12, "biases 0.1": 15, "biases 1": 15
    }  # fmt: skip
    assert set(digits["biases 0.1"]).isdisjoint(digits["biases 1"])
    mnist = space.groups(space.MNIST.grids["nngp"])  # All biases have one deviation.
    assert mnist == {
        "ConvNets": tuple(
            f"{kind}:{depth} nngp 0.1"
            for kind in ("convnet", "convnet_plain")
            for depth in (1, 2, 3)
        )
    }
    assert space.groups(space.MNIST.grids["finite"]) == {}
    assert space.groups(space.SMALL.grids["ntk"]) == {}


def test_what_is_kept_is_not_computed_again(tmp_path):
    path, counted = tmp_path / "rows.json", Counter()

    def compute():
        counted["calls"] += 1
        return {"accuracy": 0.5}

    for _ in range(2):
        assert Kept(path, {"steps": (1, 2)}).row("a", compute) == {"accuracy": 0.5}
    assert counted["calls"] == 1
    with pytest.raises(UserError, match=r"another search \(steps differ\)"):
        Kept(path, {"steps": (1, 3)})
    path.write_text('{"rows": {')
    with pytest.raises(UserError, match="holds no results"):
        Kept(path, {"steps": (1, 2)})


@pytest.fixture(scope="module")
def real():
    """The digits as a search has them, with random images as the distilled set."""
    loaded = images.load(SHORT, "")
    fitted = preprocess.fit("standard", loaded[0].known_images)
    x = preprocess.apply(fitted, loaded[1].train_images[:40])
    y = np.eye(10, dtype=np.float32)[loaded[1].train_labels[:40]] - 0.1
    distilled = export.Distilled(Path("made.npz"), x, y, None, preprocess.to_arrays(fitted))
    return images.prepared(SHORT, loaded, distilled), distilled


def test_images_are_apart_and_sets_of_one_size(real):
    found, distilled = real
    assert len(found.whole.labels) + len(found.held_out.labels) + len(found.test.labels) == 1797
    known = {image.tobytes() for image in found.whole.images}
    assert not known & {image.tobytes() for image in found.held_out.images}
    assert not known & {image.tobytes() for image in found.test.images}
    sets = images.proxies(distilled, found, draws=3)
    assert {name: one.images.shape[:2] for name, one in sets.items()} == {
        "distilled": (1, 40), "random": (3, 40), "herding": (1, 40)
    }  # fmt: skip
    for name in ("random", "herding"):
        assert all(image.tobytes() in known for image in sets[name].images[0])
        assert np.bincount(sets[name].labels[0].argmax(axis=1)).tolist() == [4] * 10


@pytest.mark.slow
def test_kernels_reach_what_a_plain_solve_reaches(real):
    found, distilled = real
    design = Infinite("fc", 2, "nngp", 0.5)
    sets = {"distilled": images.proxies(distilled, found, 1)["distilled"]}
    row = infinite.Kernels(sets, found, SHORT).measure(design)
    kernel = kernels.make_kernel(design.options)

    def share(support, labels, targets):
        k = np.asarray(kernel(support, support), np.float64)
        alpha = np.linalg.solve(k + 1e-6 * np.trace(k) / len(k) * np.eye(len(k)), labels)
        predicted = np.asarray(kernel(targets.images, support)) @ alpha
        return np.mean(predicted.argmax(axis=1) == targets.labels)

    expected = share(distilled.images, distilled.labels, found.held_out)
    assert row["distilled"]["held_out"] == pytest.approx(expected, abs=0.004)  # One image.
    x, y = images.some(found.whole, SHORT.real, jax.random.key(2)).take(slice(None))
    assert row["whole"]["held_out"] == pytest.approx(share(x, y, found.held_out), abs=0.004)
    assert row["whole"]["test"] == pytest.approx(share(x, y, found.test), abs=0.004)
    assert row["whole"]["seconds"] > 0


def test_the_time_of_a_set_is_that_of_all_parts(monkeypatch, tmp_path):
    clock = iter([10.0, 17.0, 100.0, 103.0, 500.0])
    monkeypatch.setattr(images.clock, "now", lambda: next(clock))
    parts = iter([KeyboardInterrupt, None, None])

    def distill(**_):
        if (error := next(parts)) is not None:
            raise error
        return "set"

    monkeypatch.setattr(images, "distill", distill)
    with pytest.raises(KeyboardInterrupt):
        images.made(SHORT, "finite", "", tmp_path)
    assert images.made(SHORT, "finite", "", tmp_path) == ("set", 10.0)
    assert images.made(SHORT, "finite", "", tmp_path) == ("set", 10.0)  # Nothing was to do.


@pytest.mark.parametrize(("share", "seen"), [(0.1, False), (0, True), (None, True)])
def test_a_set_that_may_have_seen_the_images_that_choose_is_named(share, seen, capsys):
    fields = {} if share is None else {"dataset.validation": share}
    meta = {"provenance": {"config": fields}}
    command._warn_of_seen(export.Distilled(Path("a.npz"), None, None, meta, None), 0.1)
    assert (
        "note: a.npz was made without dataset.validation=0.1" in capsys.readouterr().out
    ) == seen


def test_rows_that_another_process_adds_are_not_lost(tmp_path):
    one, other = (Kept(tmp_path / "rows.json", {"seeds": 2}) for _ in range(2))
    one.keep("a", {"test": 0.5})
    other.read()
    other.keep("b", {"test": 0.6})
    assert set(Kept(tmp_path / "rows.json", {"seeds": 2}).rows) == {"a", "b"}


@pytest.mark.slow
def test_the_small_version_goes_through_and_trains_nothing_twice(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "SMALL", SHORT)
    arguments = ["--small", f"--runs={tmp_path}"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (tmp_path / "tables.md").read_text() in printed
    assert (tmp_path / "ranks.png").stat().st_size > 10_000
    for kind, designs in SHORT.grids.items():
        networks = figures[kind]["networks"]
        assert list(networks) == [space.name(one) for one in designs]
        for row in networks.values():
            # Chance is a tenth; all real images are worth more than ten of them.
            assert row["whole"]["test"] > row["random"]["held_out"] > 0.15
            assert row["whole"]["seconds"] > 0
        by = {one["by"]: one for one in figures[kind]["rankings"]}
        best = max(networks, key=lambda name: networks[name]["distilled"]["score"])
        assert by["distilled"]["best"] == best
        assert by["distilled"]["test"] == 100 * networks[best]["whole"]["test"]
    # Sigmoid takes longer to learn than ReLU, and the second network finds all compiled.
    slow, fast = figures["finite"]["networks"].values()
    assert fast["whole"]["held_out"] > slow["whole"]["held_out"] + 0.1
    assert fast["distilled"]["held_out"] > fast["random"]["held_out"]
    assert slow["compiling"] > 2 * fast["compiling"]

    class Refusing:
        def __init__(self, *_):
            pass

        def measure(self, design):
            raise AssertionError(f"{design} is trained")

    again = {kind: (title, Refusing) for kind, (title, _) in command.KINDS.items()}
    monkeypatch.setattr(command, "KINDS", again)
    (tmp_path / "figures.json").unlink()
    assert command.main(arguments) == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    # A part of the search has the same rows, and asks for no other set.
    assert command.main([*arguments, "--kinds=nngp"]) == 0
    part = json.loads((tmp_path / "figures.json").read_text())
    assert part == {name: figures[name] for name in ("hardware", "nngp")}
    # A grid that grows trains what is new.
    grids = SHORT.grids | {"ntk": (*SHORT.grids["ntk"], Infinite("fc", 3, "ntk", 0.1))}
    larger = dataclasses.replace(SHORT, grids=grids)
    monkeypatch.setattr(command, "SMALL", larger)
    with pytest.raises(AssertionError, match=r"depth=3.* is trained"):
        command.main(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=cifar10"], "argument --dataset: invalid choice: 'cifar10'"),
        (["--fast"], "unrecognized arguments: --fast"),
        (["--dataset=mnist", "--data=none"], "none"),
        (["--small", "--dataset=mnist"], "--small takes the digits: leave out --dataset."),
        (["--kinds=ntk", "--set=a.npz"], "--set is for the finite networks"),
        (["--kinds=finite", "--kernel-set=a.npz"], "--kernel-set is for infinite networks"),
        (["--set=none.npz"], "none.npz does not exist"),
        (["--kinds=finite,gp"], "--kinds is 'finite,gp': take some of finite, ntk, nngp."),
        (["--set=results/kip_mnist_10_of_others"], "does not exist"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments, message, tmp_path, capsys):
    assert command.main([*arguments, f"--runs={tmp_path}"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert message in line
    assert line.count("\n") == 1


def test_a_set_of_other_data_is_refused_before_anything_is_trained(tmp_path, capsys):
    shape = (28, 28, 1)
    fitted = preprocess.fit("standard", np.arange(784, dtype=np.uint8).reshape(1, *shape))
    images_, labels = np.zeros((10, *shape), np.float32), np.eye(10, dtype=np.float32)
    description = export.Description(fitted, tuple("0123456789"))
    export.write_distilled(tmp_path / "mnist.npz", images_, labels, description)
    assert command.main([f"--set={tmp_path}/mnist.npz", f"--runs={tmp_path}/runs"]) == 2
    line = capsys.readouterr().err
    assert "28x28x1" in line
    assert line.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_grids_have_at_least_48_different_networks():
    for search in space.SEARCHES.values():
        names = {kind: {space.name(one) for one in grid} for kind, grid in search.grids.items()}
        assert {kind: len(found) for kind, found in names.items()} == {
            kind: len(grid) for kind, grid in search.grids.items()
        }
        assert len(names["finite"]) >= 48
        assert len(names["ntk"] | names["nngp"]) >= 30


def test_a_network_that_diverges_counts_nothing(real):
    found, _ = real
    networks, asked, design = finite.Networks({}, found, SHORT), [], FINITE[0]

    def count_right(states, images, labels, first, last):
        asked.append((first, last))
        return np.array([np.nan, 72.0])

    networks._trainers[design.depth, design.width] = train.Trainer(None, None, None, count_right)
    held_out, test = len(found.held_out.labels), len(found.test.labels)
    assert networks._accuracy([None], design) == pytest.approx(0.5 * 72 / held_out)
    assert networks._accuracy([None], design, test=True) == pytest.approx(0.5 * 72 / test)
    (first, middle), (last, end) = asked  # No batch holds images of both.
    assert 0 == first < middle == last < end


@pytest.mark.parametrize(
    "design", [ConvNet(2, 3, "sigmoid", "none", "max"), ConvNet(1, 4, "relu", "instance")]
)
def test_a_network_that_is_chosen_is_its_layers_by_hand(design):
    make = functools.partial(ConvNets, (8, 8, 1), 4, depth=design.depth, width=design.width)
    net = build.functions(make)
    params, other = net.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 8, 8, 1), jnp.float32)
    found = jax.jit(net.apply)(params, choose(other, design), x)

    flat = jax.tree.leaves(params)
    module = make(nnx.Rngs(jax.random.key(0)))
    affine = [layer for layer in module.layers if hasattr(layer, "kernel")]
    assert len(flat) == 2 * len(affine) + 2 * design.depth  # Scale and shift of the norms.
    for layer in affine[:-1]:
        x = jax.lax.conv_general_dilated(
            x, layer.kernel[...], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x + layer.bias[...]
        if design.norm == "instance":
            mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
            x = (x - mean) / jnp.sqrt(variance + 1e-5)
        sigmoid = 1 / (1 + jnp.exp(-x))
        x = sigmoid if design.activation == "sigmoid" else jnp.maximum(x, 0)
        pool = nnx.max_pool if design.pool == "max" else nnx.avg_pool
        x = pool(x, (2, 2), (2, 2))
    expected = x.reshape(5, -1) @ affine[-1].kernel[...] + affine[-1].bias[...]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
