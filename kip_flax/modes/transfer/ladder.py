"""How many random real images give the test accuracy of a distilled set (its worth)."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Rung(NamedTuple):
    """A number of random real images, the test accuracy (0 to 1) and its deviation over draws."""

    size: int
    accuracy: float
    deviation: float = 0.0


@dataclass(frozen=True)
class Ladder:
    """Rungs by ascending number of images; size and test accuracy (0 to 1) of a distilled set."""

    real: tuple[Rung, ...]
    size: int
    accuracy: float


def ladders(rows: Sequence[dict[str, Any]]) -> dict[str, Ladder]:
    """The ladder of each network with a distilled set and at least two numbers of random images.

    Args:
        rows: rows of a transfer: `set`, `size`, `network`, `mean`, `std` (None for a single seed).
    """
    found = {}
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        real = sorted(
            Rung(row["size"], row["mean"], row["std"] or 0.0)
            for row in own
            if row["set"] == "random"
        )
        distilled = [row for row in own if row["set"] == "distilled"]
        if len(real) > 1 and distilled:
            found[network] = Ladder(tuple(real), distilled[0]["size"], distilled[0]["mean"])
    return found


def crossing(ladder: Ladder) -> float | None:
    """Number of real images as good as the distilled set; None if the ladder does not reach it.

    Interpolates linearly in the logarithm of the number, between the first two rungs that enclose
    the set's accuracy. None also if the first rung is already better.
    """
    for (n1, a1, _), (n2, a2, _) in itertools.pairwise(ladder.real):
        if a1 <= ladder.accuracy <= a2:
            share = (ladder.accuracy - a1) / (a2 - a1) if a2 > a1 else 0.0
            return math.exp(math.log(n1) + share * (math.log(n2) - math.log(n1)))
    return None


def words(ladder: Ladder) -> str:
    """The crossing in words."""
    found = crossing(ladder)
    if found is not None:
        times = found / ladder.size
        return f"{ladder.size} images are worth {found:.0f} real ones, {times:.1f} times their size"
    if ladder.accuracy > max(rung.accuracy for rung in ladder.real):
        return f"{ladder.size} images are worth more than {ladder.real[-1].size} real ones"
    return f"{ladder.size} images are worth no more than {ladder.real[0].size} real ones"
