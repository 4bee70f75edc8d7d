"""README against the repository: it is short, its Python runs, its commands and links exist."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import main
from kip_flax import algorithms, export, preprocess
from kip_flax.config import FIELDS
from kip_flax.modes.compare import published
from results import costs, record, words
from results.experiments import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


def test_the_distilled_file_in_four_lines(tmp_path, monkeypatch):
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line]) == 4
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    fitted = preprocess.fit("standard", pixels)
    labels = rng.standard_normal((10, 10)).astype(np.float32)
    (path,) = re.findall(r'"(.*\.npz)"', code)
    export.write_distilled(
        tmp_path / path,
        preprocess.apply(fitted, pixels),
        labels,
        export.Description(fitted, tuple("0123456789")),
    )
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    np.testing.assert_array_equal(names["labels"], labels)
    assert names["images"].shape == (10, 8, 8, 1)
    np.testing.assert_allclose(names["pictures"], pixels / 255, atol=1e-5)


DATA = {"MNIST": "mnist", "Fashion-MNIST": "fashion_mnist", "CIFAR-10, JPEG copy": "cifar10"}


def best_published(by, dataset, size):
    """Of all methods that we have figures of, in %."""
    per_class = size / 10
    found = [p.accuracies.get(dataset, {}) for p in published.figures() if p.measured_by == by]
    return max(accuracies[per_class] for accuracies in found if per_class in accuracies)


def test_results_are_those_of_rows():
    """A row's figure with its core hours, beside the best that was published."""
    results = ROOT / "results"
    found = [costs.cost(results / e.name) for e in EXPERIMENTS if record.is_done(e, results)]
    kernels, nets = set(), set()
    for one in found:
        head, hours = (one.dataset, one.size), f"{one.core_hours:.1f}"
        kernels.add((*head, f"{100 * one.krr:.2f}", hours))
        if net := words.by_networks({"network": one.networks.values()})[0]:
            nets.add((*head, net, hours))
    lines = re.findall(r"^\| (\S[^|]*) \| (10|100|500) \| (.*) \|$", README, re.MULTILINE)
    assert len(lines) == 8
    for name, size, rest in lines:
        head = (DATA[name], int(size))
        krr, krr_published, krr_hours, net, net_published, net_hours = map(
            str.strip, rest.split("|")
        )
        assert (*head, krr, krr_hours) in kernels
        assert float(krr_published) == best_published("kernel", *head)
        if net:
            assert (*head, net, net_hours) in nets
            assert float(net_published) == best_published("network", *head)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_files_and_flags_that_exist(command):
    for word in shlex.split(command):
        name, _, value = word.partition("=")
        if name.startswith("--config."):
            assert name.removeprefix("--config.") in FIELDS
        elif name.startswith("--"):
            assert name.removeprefix("--") in main.FLAGS
        path = value if name == "--config" else word
        if re.fullmatch(r"[\w/]+\.(py|sh|txt)", path):
            assert (ROOT / path).is_file(), path


def test_it_is_read_in_a_minute():
    assert len(README.splitlines()) <= 150


def test_ci_runs_the_test_command():
    assert COMMANDS[1] == "bash tests/run.sh"
    assert f"\n{COMMANDS[1]}\n" in CI


@pytest.mark.parametrize("name", algorithms.NAMES)
def test_the_papers_of_every_algorithm_can_be_cited(name):
    """They are in CITATION.cff and, by their number on arXiv, in README."""
    titles = re.findall(r"^    title: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    bibtex = algorithms.facts(name).bibtex
    papers = re.findall(r"  title\s*= \{(.*?)\}", bibtex, re.DOTALL)
    numbers = re.findall(r"arXiv:([\d.]+)", bibtex)
    assert len(numbers) == len(papers) > 0
    assert {" ".join(paper.split()) for paper in papers} <= set(titles)
    assert all(number in README for number in numbers)


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert "docs/digits.png" in links
    assert [link for link in links if not (ROOT / link.partition("#")[0]).is_file()] == []


def test_ci_checks_the_spelling():
    assert '"$VENV/bin/codespell"' in CI.splitlines()
    tools = (ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8")
    assert re.search(r"^codespell==", tools, re.MULTILINE)
