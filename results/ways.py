"""The curves of 100 images of CIFAR-10 over core hours: two ways of making them, one picture.

python -m results.ways   draws docs/ways_cifar10.png
"""

from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from kip_flax.modes.figures.draw import rendered
from kip_flax.runtime import files
from results import record

FOLDER = Path(__file__).resolve().parent
PICTURE = FOLDER.parent / "docs" / "ways_cifar10.png"
# The last row of each; rows that it goes on from come before it.
WAYS = {
    "Gauss-Newton steps (kip_newton)": "kip_newton_cifar10_100_larger",
    "features of random networks (rfad)": "rfad_cifar10_100_wide",
}


class Point(NamedTuple):
    """Core hours since the real images, and accuracy on held-out images, 0 to 1."""

    core_hours: float
    accuracy: float


def curve(last: str, results: Path = FOLDER) -> list[Point]:
    """The evaluations of a chain of rows by its last; a row's hours go to its steps equally.

    Steps after the chosen set are not drawn, but cost what they did.
    """
    points, before = [], 0.0
    for folder in record.chain(results / last):
        draw = record.read(folder)["draws"][0]
        evaluations = draw["watched"]["evaluations"]
        hours, final = draw["cpu_seconds"] / 3600, evaluations[-1]["step"]
        for row in evaluations:
            if row["step"] <= draw["step"]:
                points.append(Point(before + hours * row["step"] / final, row["accuracy"]))
        before += hours
    return points


def figure(ways: dict[str, list[Point]]) -> Figure:
    """Accuracy over core hours, a line for each way."""
    drawn = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = drawn.subplots()
    for (title, points), marker in zip(ways.items(), "os^D", strict=False):
        accuracies = [100 * point.accuracy for point in points]
        hours = [point.core_hours for point in points]
        axes.plot(hours, accuracies, f"{marker}-", ms=3.5, lw=1, label=title)
    axes.set(xlabel="core hours", ylabel="held-out accuracy of the kernel, %")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return drawn


def main() -> None:
    """Draws the picture."""
    ways = {title: curve(last) for title, last in WAYS.items()}
    files.write_bytes_atomic(PICTURE, rendered(figure(ways), "png"))


if __name__ == "__main__":
    main()
