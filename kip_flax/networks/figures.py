"""Accuracies of networks that were trained on a set: rows of numbers, and their texts.

A row has `network` (its name), `on` (the images that it is tested on: `VALIDATION`, `HELD_OUT` or
`TEST`), `accuracies` (0 to 1) of the seeds with their `mean` and `std` (n - 1; None for a single
seed), the chosen `learning_rate` (in units of the largest one if the recipe uses them) and `l2`,
the `recipe` in words, `training` (a checksum of all that decides how it was trained and by which
images it is judged) and the `width` (None for a network of the zoo, which has its own). If the
training diverged, `accuracies` is empty.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
VALIDATION, HELD_OUT, TEST = "validation", "held_out", "test"


def summary(accuracies: Sequence[float]) -> Row:
    """`accuracies`, `mean` and `std` of a row; `accuracies` is empty if the training diverged."""
    several = len(accuracies) > 1
    return {
        "accuracies": list(accuracies),
        "mean": float(np.mean(accuracies)) if accuracies else None,
        "std": float(np.std(accuracies, ddof=1)) if several else None,
    }


def words(on: str) -> str:
    """The images that `on` of a row names, in words: 'held-out images'."""
    return f"{on.replace('_', '-')} images"


def watched_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows by which a set is watched and may be chosen: all but those on test images."""
    return [row for row in rows if row["on"] != TEST]


def watched_mean(rows: Sequence[Row]) -> float | None:
    """Mean accuracy of the networks that watch a set; None if none does, or if one diverged."""
    means = [row["mean"] for row in watched_rows(rows)]
    return float(np.mean(means)) if means and None not in means else None


def outcome(rows: Sequence[Row]) -> list[Row]:
    """One row per network of an evaluation: the one on the test images, if there is one."""
    by_name = {row["network"]: row for row in sorted(rows, key=lambda row: row["on"] == TEST)}
    return list(by_name.values())


def networks_text(row: Row) -> str:
    """The networks of a row: '2 x convnet_plain:3, width 128'."""
    width = f", width {row['width']}" if row["width"] is not None else ""
    return f"{len(row['accuracies'])} x {row['network']}{width}"


def spread(row: Row) -> str:
    """The accuracy of a row: '40.12 ± 0.50 %', or 'diverged'."""
    return spread_in_percent(row) + ("" if row["mean"] is None else " %")


def spread_in_percent(row: Row) -> str:
    """The same for a table: '40.12 ± 0.50', or 'diverged'."""
    if row["mean"] is None:
        return "diverged"
    deviation = f" ± {100 * row['std']:.2f}" if row["std"] is not None else ""
    return f"{100 * row['mean']:.2f}{deviation}"


def sentence(row: Row) -> str:
    """A row in words: '40.12 ± 0.50 % of test images (5 x convnet_plain:3, width 128)'."""
    if row["mean"] is None:
        return f"{row['network']} diverged"
    return f"{spread(row)} of {words(row['on'])} ({networks_text(row)})"


def scalars(rows: Sequence[Row]) -> dict[str, float]:
    """Mean accuracies by names such as 'held_out_accuracy/convnet_plain:3'."""
    known = [row for row in rows if row["mean"] is not None]
    return {f"{row['on']}_accuracy/{row['network']}": row["mean"] for row in known}
