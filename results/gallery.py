"""docs/gallery.md: every set with its picture, its figures and the line that loads it.

python -m results.gallery   writes it anew
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from kip_flax.data.coresets import CORESETS
from kip_flax.runtime import files
from results import card, record, words
from results.experiments import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "gallery.md"
_HEAD = """# Gallery

For readers who look for a set to use. Each section is a set in `results/`: above the images that it
began with, below those that were learned (at most {shown}), each with its class and the value of
that label. Sets are sorted by data set, number of images, and accuracy. Written by `python -m
results.gallery`.

Test accuracy is in %. *KRR*: of kernel ridge regression by the NTK, or by the NNGP where the
method says so; the kernel is mirrored where it says so. *Networks*: of five ConvNet-3 of width
128 trained on the set, without and with instance normalisation ([how](transfer.md)); a row that is
missing was not measured, another number of networks stands in brackets. Of several draws, the
picture and *networks* are of the first.
*Hours*: wall time on two cores without an accelerator, and in brackets core hours, without those of
a set that it goes on from. ± is a deviation over draws or networks.

```python
from kip_flax import export

file = export.load_distilled("results/kip_digits_10/ConvNetPre2_ssize10_nozca_l_noaug_ckpt60.npz")
images, labels = file.images, file.labels  # (10, 8, 8, 1) and (10, 10): train on these
```

The card of a set, linked from its name, has its preprocessing, its licence, and the commands that
measure it and make it again.
"""
_ROWS = ("KRR, at the start", "KRR", "Networks", "Networks, normalised", "Hours")


def render(results: Path) -> str:
    """The page, from the folder `results`."""
    parts = [_HEAD.format(shown=record.SHOWN)]
    for dataset, group in groupby(_sets(results), key=lambda entry: words.dataset(entry["config"])):
        parts += [f"\n## {dataset}\n", *(_section(entry) for entry in group)]
    return "".join(parts)


def _sets(results: Path) -> Iterator[dict[str, Any]]:
    """The records of all finished experiments, in the order of the page."""
    found = [record.read(results / e.name) for e in EXPERIMENTS if record.is_done(e, results)]
    order = list(words.DATASETS)

    def place(entry: dict[str, Any]) -> tuple[int, int, float]:
        config = entry["config"]
        accuracy = np.mean([draw["final"]["accuracy"] for draw in entry["draws"]])
        return order.index(config["dataset"]["name"]), config["support"]["size"], -float(accuracy)

    yield from sorted(found, key=place)


def _section(entry: dict[str, Any]) -> str:
    config, draws, name = entry["config"], entry["draws"], entry["name"]
    wall, busy = words.hours(draws)
    cells = (
        record.percent([draw["initial"]["accuracy"] for draw in draws]),
        record.percent([draw["final"]["accuracy"] for draw in draws]),
        *words.by_networks(entry),
        f"{wall} ({busy})",
    )
    table = "\n".join(f"| {row} | {cell} |" for row, cell in zip(_ROWS, cells, strict=True) if cell)
    return f"""
### [{name}](../results/{name}/{card.CARD})

{_what(config)}

![Images at the start and learned, {name}](../results/{name}/{record.PICTURE})

| | |
|---|---|
{table}

```python
{_loading(f"results/{name}/{entry['set']}")}
```
"""


def _loading(path: str) -> str:
    """The line that loads a set, as ruff formats it."""
    line = f'file = export.load_distilled("{path}")'
    return line if len(line) <= 100 else f'file = export.load_distilled(\n    "{path}"\n)'


def _what(config: dict[str, Any]) -> str:
    size, method, labels = config["support"]["size"], words.method(config), words.labels(config)
    return f"{size} images. {method}; labels {labels}.{_start(config)}"


def _start(config: dict[str, Any]) -> str:
    """The start of the set, unless it is real images with their labels."""
    init = config["support"]["init"]
    if init == "real":
        return " Labels are solved at the start, too." if words.began(config) else ""
    if init in CORESETS:
        return f" Begins with images chosen by {init}."
    row = Path(init).parent.name
    return f" Goes on from [{row}](#{row})." if row else f" Begins as {init}."


if __name__ == "__main__":
    files.write_bytes_atomic(PAGE, render(ROOT / "results").encode())
