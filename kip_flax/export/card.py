"""The card of an exported set: a README.md with the header that the Hugging Face Hub reads.

The parts that do not depend on the files beside it are public.
"""

import decimal
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kip_flax import algorithms
from kip_flax.algorithms import base
from kip_flax.data.sets import field_name
from kip_flax.export import layouts
from kip_flax.export.sets import Distilled
from kip_flax.networks import figures

_LEARNED = {
    "learned": "images and labels",
    "solved": "images, labels solved for",
    "fixed": "images, labels fixed",
}
_STARTS = {"real": "real images", "noise": "noise", "set": "images of another set"}
_SPACES = {
    "none": "Pixels in [0, 1].",
    "centred": "Pixels in [0, 1] minus 1/2, divided by 1/4: constants, fitted on nothing.",
    "standard": "Pixels in [0, 1] minus the mean, divided by the standard deviation of each "
    "channel of {source}.",
    "zca_normalize": "Pixels in [0, 1] standardised channel by channel; each image minus its mean, "
    "divided by its L2 norm; then whitened (ZCA, regulariser 0.1), all fitted on {source}.",
    "zca": "Pixels in [0, 1] standardised channel by channel, then whitened (ZCA, regulariser 0.1),"
    " fitted on {source}.",
    "zca_center": "Pixels in [0, 1] standardised channel by channel, minus the mean image, then "
    "whitened (ZCA, regulariser 0.1), fitted on {source}.",
}


@dataclass(frozen=True)
class Files:
    """Paths of the files that the card explains, relative to it.

    Attributes:
        npz: the file that `export.load_distilled` reads.
        whole: images and labels as learned, for PyTorch.
        images, labels: two files for evaluators that take them separately, for PyTorch.
        result: the set in the form of DatasetCondensation's results, for PyTorch.
    """

    npz: str
    whole: str
    images: str
    labels: str
    result: str


def write_card(distilled: Distilled, dataset: str, files: Files) -> str:
    """The text of README.md.

    Args:
        distilled: the set, with `meta` and `preprocess`.
        dataset: name of the data set that it was made from.
        files: the files beside the card.
    """
    provenance = distilled.provenance
    sections = (
        _header(distilled, dataset),
        opening(distilled, dataset),
        _files(dataset, files),
        _loading(files.npz),
        "## Preprocessing\n\n" + preprocessing(distilled),
        "## Figures\n\n" + _figures(provenance, distilled.kernel),
        *([f"## Privacy\n\n{stated}"] if (stated := privacy(distilled)) else []),
        f"## Licence\n\n{licence(dataset)} Put its licence into the header before you publish.",
        "## Limits\n\n" + limits(distilled, *_chosen(provenance)),
        "## Citation\n\n" + _citation(distilled),
    )
    return "\n\n".join(sections) + "\n"


def _algorithm(distilled: Distilled) -> str | None:
    """Name of the algorithm that made the set; '' if the file does not record it.

    None for a set of others of which only the form is known.
    """
    if "imported" in distilled.provenance:
        layout = distilled.provenance["layout"]
        return layout if layout in layouts.OF_ONE_METHOD else None
    return distilled.provenance.get("config", {}).get("algorithm", "")


def _header(distilled: Distilled, dataset: str) -> str:
    count, algorithm = len(distilled.images), _algorithm(distilled)
    stated = "" if algorithm is None else algorithms.facts(algorithm).tag
    tag = f"\n- {stated}" if stated else ""
    sizes = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K"}
    size = next((name for most, name in sizes.items() if count < most), "n>100K")
    name = json.dumps(f"{dataset}, distilled to {count} images", ensure_ascii=False)
    return f"""---
license: other
pretty_name: {name}
task_categories:
- image-classification
size_categories:
- {size}
tags:
- dataset-distillation{tag}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---"""


def opening(distilled: Distilled, dataset: str) -> str:
    """The heading, who made the set and how, its shapes and the meaning of its labels."""
    maker = _maker(distilled)
    class_names = distilled.class_names
    count = len(distilled.images)
    counts = np.bincount(distilled.labels.argmax(1), minlength=len(class_names))
    least, most = min(counts), max(counts)
    each = f"{least}" if least == most else f"{least} to {most}"
    height, width, channels = distilled.images.shape[1:]
    return f"""# {dataset}, distilled to {count} images

{maker}

- {count} images of {height}x{width}x{channels}, {len(class_names)} classes, {each} for each class \
(by the largest label).
- Classes: {", ".join(class_names)}.
- Labels are regression targets: a class is one-hot minus 1/{len(class_names)}; learned ones hold \
any numbers, negative ones too."""


def _maker(distilled: Distilled) -> str:
    provenance = distilled.provenance
    version = provenance.get("versions", {}).get("kip_flax")
    by = f"kip_flax {version}" if version else "kip_flax"
    if "imported" in provenance:
        return (
            f"Imported by {by} from `{provenance['imported']}` ({provenance['layout']}), which was "
            "made by others: cite them."
        )
    algorithm = _algorithm(distilled) or ""
    facts = algorithms.facts(algorithm)
    method = facts.full_title or "kernel ridge regression"
    config, step = provenance.get("config"), provenance.get("step")
    if config is None or step is None:
        return f"Made by {by}: {method}."
    labels = algorithms.known(algorithm).labels(config["support.learn_labels"])
    learned = (
        _LEARNED[labels] if facts.learns_images else f"{_STARTS[_start(config)]}, labels {labels}"
    )
    made = f"{facts.unit_alone} {step}, seed {config['seed']}"
    return f"Made by {by}: {method}, {learned}, {made}."


def _start(config: Mapping[str, Any]) -> str:
    """The images that a run began with: 'real', 'noise' or 'set'."""
    return base.kind_of_start(config.get("support.init", "real"))


def _files(dataset: str, files: Files) -> str:
    return f"""## Files

| | |
|---|---|
| `data/*.parquet` | one row for each image: `image` (PNG, to look at), `label` (the \
largest one's class), `soft_label` (as learned), `array` (the image as learned, float32, H x W x \
channels) |
| `png/` | the same PNGs, one folder for each class, its number in front |
| `{files.whole}` | PyTorch: `images` (N, C, H, W) as learned, `labels` as learned, `classes` |
| `{files.images}`, `{files.labels}` | PyTorch, for evaluators such as DD-Ranking's: images \
normalised as they normalise {field_name(dataset)}, labels as learned |
| `{files.result}` | the same images with class numbers, as DatasetCondensation saves its results: \
learned labels are not in it |
| `{files.npz}` | NumPy: `images`, `labels` as learned, with the preprocessing; what kip_flax \
reads |"""


def _loading(npz: str) -> str:
    return f"""## Load

```python
from datasets import load_dataset

rows = load_dataset("THIS_FOLDER", split="train").with_format("numpy")
images, labels = rows["array"][:], rows["soft_label"][:]
```

```python
import numpy as np

file = np.load("{npz}")
images, labels = file["images"], file["labels"]
```"""


def preprocessing(distilled: Distilled) -> str:
    """The space of the images in words, with its mean and standard deviation."""
    name = distilled.preprocess_name or "none"
    text = f"`{name}`: {_SPACES[name].format(source=_source(distilled.provenance))}"
    if distilled.preprocess is None:
        return text
    values = {key: distilled.preprocess[key].tolist() for key in ("mean", "std")}
    for key, numbers in values.items():
        text += f"\n\n`{key}`: {', '.join(f'{number:.6g}' for number in numbers)}."
    return text + (
        "\n\nImages to be classified must be brought into the same space. `kip_flax.preprocess` "
        "applies and inverts it from the arrays in the npz."
    )


def _source(provenance: dict[str, Any]) -> str:
    """The images whose statistics the preprocessing takes."""
    if provenance.get("layout") in layouts.BY_FIELD_CONSTANTS:
        return "the training images, by the constants that the field's evaluators have for them"
    public = provenance.get("config", {}).get("dataset.preprocess_from")
    return f"the training images of {public}" if public else "the training images"


def _figures(provenance: dict[str, Any], kernel: dict[str, Any]) -> str:
    split = next((s for s in ("test", "validation") if f"{s}_accuracy" in provenance), None)
    reached = _of_networks(figures.outcome(provenance.get("networks", [])))
    if split is None:
        return "None were measured by kip_flax."
    held_out = ", which were held out of the training images" if split == "validation" else ""
    reg = provenance.get("config", {}).get("reg")
    return (
        f"Kernel ridge regression on this set ({of_kernel(kernel)}; reg {reg}) classifies "
        f"{100 * provenance[f'{split}_accuracy']:.2f} % of the {split} images{held_out}; half the "
        f"mean squared error is {provenance[f'{split}_mse']:.5f}. "
        + (reached or "No network was trained on it here.")
    )


def of_kernel(kernel: Mapping[str, Any]) -> str:
    """'convnet, depth 3, ntk, mirrored', from the fields of a file or of `config.kernel`."""
    words = {"architecture": "{}", "depth": "depth {}", "get": "{}", "kind": "{}"}
    parts = [text.format(kernel[key]) for key, text in words.items() if key in kernel]
    return ", ".join([*parts, "mirrored"] if kernel.get("mirrored") else parts)


def _of_networks(rows: list[figures.Row]) -> str:
    """The accuracies of networks, one line each, and their recipe; '' if there are no rows."""
    if not rows:
        return ""
    lines = "\n".join(f"- {figures.sentence(row)}" for row in rows)
    held_out = (
        "\n\nHeld-out images are training images, which the set may have learned from and the "
        "networks have not."
        if any(row["on"] == figures.HELD_OUT for row in rows)
        else ""
    )
    return f"Networks trained on it ({rows[0]['recipe']}) reach:\n\n{lines}{held_out}"


def privacy(distilled: Distilled) -> str:
    """The set's statement on the privacy of its training images; '' if it has none."""
    stated = distilled.provenance.get("privacy")
    if not stated:
        return ""
    guarantee = (
        "The noise can be repeated, so the set is **not private**"
        if stated["epsilon"] is None
        else f"The set is differentially private: {spent_privacy(stated)}"
    )
    rows = "\n".join(
        f"| {name} | {value} |"
        for name, value in (
            ("neighbouring data sets", stated["neighbours"]),
            ("published", f"all sets up to step {stated['steps']}"),
            ("sampling", f"each image with probability {stated['sampling_rate']:.6g} a step"),
            ("clipping", f"gradient of each image to norm {stated['clip']:g}"),
            ("noise multiplier", f"{stated['noise_multiplier']:.6g}"),
            *_means(stated),
            ("accountant", stated["accountant"]),
        )
    )
    return (
        f"{guarantee}.\n\n| | |\n|---|---|\n{rows}\n\nNot covered: "
        f"{'; '.join(stated['not_covered'])}."
    )


def spent_privacy(stated: Mapping[str, Any]) -> str:
    """'epsilon 10, delta 1e-05', from a statement on privacy that has an epsilon.

    Epsilon is rounded up: a smaller one would be more than the set promises.
    """
    four_digits = decimal.Context(prec=4, rounding=decimal.ROUND_CEILING)
    epsilon = float(four_digits.create_decimal(repr(stated["epsilon"])))
    return f"epsilon {epsilon:.4g}, delta {stated['delta']:g}"


def _means(stated: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A row on the class means of the first step, if it released them."""
    if "means_noise_multiplier" not in stated:
        return []
    noise = f"noise multiplier {stated['means_noise_multiplier']:.6g}"
    return [("first step", f"means of all images of each class, {noise}")]


def licence(dataset: str) -> str:
    """A note on the licence: the terms of `dataset` hold."""
    return f"The images were made from training images of {dataset}: its terms hold for them."


def limits(distilled: Distilled, *more: str) -> str:
    """The limits of the set, as a list with `more` at its end."""
    algorithm, judge = _algorithm(distilled), "network or kernel"
    if algorithm is not None:
        judge = "network" if algorithms.facts(algorithm).for_networks else "kernel"
    lines = [
        f"The set was optimised for one {judge} and one preprocessing; elsewhere it is worth less.",
        "PNGs have 8 bits and are clipped to [0, 1]: train on the images as learned, not on them.",
    ]
    if (distilled.provenance.get("privacy") or {}).get("epsilon") is None:
        config = distilled.provenance.get("config", {})
        kept = not algorithms.facts(algorithm or "").learns_images
        real = kept and _start(config) == "real"
        shown = "The images are" if real else "Learned images can show"
        lines.append(f"{shown} training images: a set from private data is private.")
    if (distilled.preprocess_name or "").startswith("zca"):
        lines.insert(
            2,
            "Pictures, and the images for other evaluators, are the whitening's inverse. "
            + (
                "Each image's own mean and norm are gone; typical ones stand in for them."
                if distilled.preprocess_name == "zca_normalize"
                else "Learned images may leave the range of pixels there."
            ),
        )
    if distilled.kernel.get("mirrored"):
        lines.append(
            "An image stands for its mirror image (left to right) too: train networks with flips. "
            "The kernel is the mean of k(x, s) and k(x, mirrored s), of preprocessed images."
        )
    return "\n".join(f"- {line}" for line in [*lines, *more])


def _citation(distilled: Distilled) -> str:
    if not (algorithm := _algorithm(distilled)):
        return "The file does not say its method: cite who made it."
    if not algorithms.facts(algorithm).bibtex:
        return "The method states no papers: cite who made it."
    return citation(algorithm)


def citation(algorithm: str) -> str:
    """The papers to cite for a set of `algorithm`, as a block of BibTeX."""
    return f"```bibtex\n{algorithms.facts(algorithm).bibtex}\n```"


def _chosen(provenance: dict[str, Any]) -> list[str]:
    if "test_accuracy" not in provenance:
        return []
    return ["The step may have been chosen by the test accuracy given above."]
