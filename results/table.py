"""The table of results/README.md, from the figures of all experiments, and the card of each.

python -m results.table   writes them anew
"""

from pathlib import Path

from kip_flax.runtime import files
from results import card, record, words
from results.experiment import Experiment
from results.experiments import EXPERIMENTS

_HEAD = """# Results

Test accuracy in % of kernel ridge regression, on all test images. *Natural*: the real images that
the set was made from, labels as they came; in brackets what else it began from. Where settings or
checkpoints were chosen, a tenth of the training images, held out, decided. Checkpoints: the one
with the least error; in the rows `kip_cifar10_10`, `kip_newton_mnist_10` and
`kip_newton_fashion_mnist_10` the one with the best accuracy; of DC and DSA the last; of FRePo, RFAD
and BPTT the one that networks learn most from, or the last if none were trained. The test images
were read once, but for rows of the digits, which are watched on them, and twice for
`kip_newton_cifar10_10` and `kip_newton_mnist_100`, which had been chosen by accuracy at first
(60.02 % at step 75, 98.51 % at step 20), and for `kip_fc_mnist_100`, which was made by Gauss-Newton
steps at first (96.37 %); a row that goes on from the set of another reads them for that set again,
Gauss-Newton steps with labels solved anew. ± is the standard deviation over draws of the images
(`figures.json` has each). Ten images of Fashion-MNIST come to the published figure with pixels in
[0, 1], not with standardised ones: each of ten draws is better so, by 2.33 ± 1.65 points. Some rows
were made before Gauss-Newton steps were chosen by cross-validation, and before a set was a mean of
images (docs/what-was-tried.md has what that is worth): `kip_newton_*` on MNIST, Fashion-MNIST and
CIFAR-10, but not `kip_newton_mnist_500`, not `kip_newton_fashion_mnist_10_fixed`,
`kip_newton_cifar10_10_fixed` and `kip_newton_cifar10_10_fixed_ridge`, and not the rows that go on
from another set. `figures.json` has the commit of each. *Published*, on the original data: Nguyen
et al., NeurIPS 2021 (rows `kip_fc_*`: ICLR 2021); for KIP, and for rows `*_relabelled`, the best
variant of KIP. The CIFAR-10 here is a JPEG copy. *Hours*: wall time of one run on two cores without
an accelerator (AMD EPYC or Intel Xeon: `figures.json` says which) that did other work as well, with
the evaluations that it makes itself; *core hours*: its processor time, that of reading the test
images included and that of a set it goes on from not. Rows of BPTT, DC, DSA and FRePo were made
before their steps were faster ([docs/performance.md](../docs/performance.md)). The kernel is the
NTK, unless the method says 'nngp'. For the published sets of convolutional kernels hundreds of GPUs
worked side by side (second-hand; for how long is not known here).

*Network*: what networks reach that are trained on the set by the recipe 'auto'
([docs/transfer.md](../docs/transfer.md)), mean and deviation of five (of another number in
brackets) on all test images: the field's ConvNet-3 of width 128 without normalisation
(`convnet_plain:3`), and, *normalised*, with instance normalisation (`convnet_in`). An empty cell
was not measured. Of several draws it is the first one's set. `python -m results.networks
--data=DIR` measures what is missing, `python -m results.best --data=DIR` other networks on the best
sets of [docs/rivals.md](../docs/rivals.md).

Each folder holds the set (`.npz`), its card, a picture, the curve where there is one, and
`figures.json` with the curve, the command, versions, hardware and wall time.
`python -m results.run_all --data=DIR` makes what is missing; `python -m results.table` writes this
page and the cards, `python -m results.gallery` [docs/gallery.md](../docs/gallery.md),
`python -m results.configurations` [docs/configurations.md](../docs/configurations.md),
`python -m results.costs` the tables in [docs/rivals.md](../docs/rivals.md), `python -m results.rows
--data=DIR` the figure [docs/mnist_rows.png](../docs/mnist_rows.png): natural, labels fixed, labels
learned; `python -m results.ways` [docs/ways_cifar10.png](../docs/ways_cifar10.png): 100 images over
core hours.
[ablations.md](ablations.md) has what single settings do, on held-out images.

"""
_COLUMNS = (
    *("Data", "Method", "Images", "Labels", "Natural", "Ours", "Published", "Network"),
    *("Normalised", "Steps", "Hours", "Core hours"),
)
_TAIL = """
CIFAR-100 and SVHN: not measured (`configs/kip_cifar100.py` and `configs/kip_svhn.py` are ready).

## Make a row again

`python -m results.run_all --data=data --results=again --only=NAME` makes the set of a row, chooses
and measures it. A row that goes on from another set reads that from this folder. The card in a
row's folder has the command of the run alone.

## Measure a row again

A set is evaluated on the test images by the command of its row, without what concerns validation:

```bash
"""


def render(results: Path) -> str:
    """README.md of the folder `results`."""
    rows = [_row(experiment, results / experiment.name) for experiment in EXPERIMENTS]
    done = [experiment for experiment in EXPERIMENTS if record.is_done(experiment, results)]
    commands = [words.evaluation(e, record.read(results / e.name)) for e in done]
    pictures = [
        f"\n[{experiment.name}]({experiment.name}/)\n\n"
        f"![Images before and after, {experiment.name}]({experiment.name}/{record.PICTURE})\n"
        for experiment in done
    ]
    return (
        _HEAD
        + f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"
        + "".join(rows)
        + _TAIL
        + "".join(f"{command}\n" for command in commands)
        + "```\n\n## Pictures\n"
        + "".join(pictures)
    )


def write(results: Path) -> None:
    """Writes README.md into the folder `results`, and its card into that of each row."""
    files.write_bytes_atomic(results / "README.md", render(results).encode())
    for experiment in EXPERIMENTS:
        if record.is_done(experiment, results):
            text = card.render(experiment, results / experiment.name)
            files.write_bytes_atomic(results / experiment.name / card.CARD, text.encode())


def _row(experiment: Experiment, folder: Path) -> str:
    published = "-" if experiment.published is None else f"{experiment.published:g}"
    if not (folder / record.FIGURES).exists():
        return f"| `{experiment.name}` | | | | | not measured | {published} | | | | | |\n"
    figures = record.read(folder)
    config = figures["config"]
    draws = figures["draws"]
    cells = [
        words.dataset(config),
        f"[{words.method(config)}]({experiment.name}/)",
        str(config["support"]["size"]),
        words.labels(config),
        record.percent([draw["initial"]["accuracy"] for draw in draws]) + words.began(config),
        record.percent([draw["final"]["accuracy"] for draw in draws]),
        published,
        *words.by_networks(figures),
        str(draws[0]["step"]) if words.counts_steps(config) else "",
        *words.hours(draws),
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    write(Path(__file__).resolve().parent)
