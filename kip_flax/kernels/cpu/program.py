"""A plan as arrays that compiled code can walk: one record per level, one per stage."""

from typing import NamedTuple

import numpy as np

from kip_flax.kernels.plan import KernelLevel, KernelPlan

_LEVEL = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("height", "width", "first_stage", "stages", "reach", "lag"),
            *(
                "first_offset",
                "offsets",
                "band_rows",
                "band_columns",
                "first_start",
                "first_coarse",
            ),
            *("pooled", "step", "window", "start_row", "start_column"),
        )
    ]
)
_STAGE = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("size", "rectified", "map", "signed", "tangent", "ntk"),
            *("first_row", "kept", "first_kept"),
        )
    ]
    + [(name, np.float64) for name in ("factor", "bias", "alpha", "beta")]
)


class Program(NamedTuple):
    """A plan as compiled code reads it.

    Attributes:
        levels: one record per level. `reach` is half its widest window, `lag` the sum of the halves
            of all its windows, both rounded down. A level that is `pooled` ends with averages of
            `window` x `window` pixels, every `step` pixels from (start_row, start_column) on.
        stages: one record per stage, which is a convolution and, if `rectified`, the ReLU after it.
            `map` is the place of its first deviation among those of an image. `signed` is set if K
            can be negative before it, `tangent` if a T enters it, `ntk` if alpha, beta are
            1, 0. `factor` is the weight with which its result is read. `first_row` is the first row
            of its ring. The backward pass keeps `kept` of its rows, from `first_kept` on.
        offsets: (n, 2), those of all levels, level after level.
        starts: for each level, the start of each offset's plane among the pixel pairs that enter
            any level but the first; -1 for offsets that the level does not need.
        cells: number of pixel pairs that enter any level but the first.
        coarse: for each pooled level, the places of its rows and then of its columns in the next
            level; -1 for those that the pool or stride drops.
        share: weight of a pixel pair in the final mean.
        image_factor: factor of the fixed side's image.
        deviation_factors: (maps,), factors of the fixed side's deviations.
        maps: deviations per image.
        channels: channels of the images.
    """

    levels: np.ndarray
    stages: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray
    cells: int
    coarse: np.ndarray
    share: float
    image_factor: float
    deviation_factors: np.ndarray
    maps: int
    channels: int


def assemble(plan: KernelPlan, channels: int) -> Program:
    """The program of a plan for images of `channels` channels."""
    levels = np.zeros(len(plan.levels), _LEVEL).view(np.recarray)
    stages: list[tuple] = []
    all_offsets: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    coarse: list[np.ndarray] = []
    cells, maps, signed, tangent = 0, 0, True, False
    entry_factor, factors = _factors(plan)
    for record, level in zip(levels, plan.levels, strict=True):
        record.height, record.width = level.height, level.width
        record.first_stage = len(stages)
        found = level.stages()
        # A row is kept while the rows after it pass through the rest of the stages and come back.
        kept = [1 + 2 * sum(a.size // 2 for a, _ in found[i + 1 :]) for i in range(len(found))]
        for i, (op, rectified) in enumerate(found):
            record.reach = max(record.reach, op.size // 2)
            record.lag += op.size // 2
            ntk = (op.alpha, op.beta) == (1, 0)
            first_row = 2 + sum(before.size for before, _ in found[:i])
            stages.append(
                (
                    *(op.size, rectified, maps, signed, tangent, ntk),
                    *(first_row, kept[i], sum(kept[:i])),
                    *(factors[len(stages)], op.bias, op.alpha, op.beta),
                )
            )
            tangent = True
            if rectified:
                signed = False
                maps += level.height * level.width
        record.stages = len(stages) - record.first_stage
        record.first_offset = sum(map(len, all_offsets))
        all_offsets.append(level.offsets())
        record.offsets = len(all_offsets[-1])
        record.band_rows, record.band_columns = level.band
        record.first_start = sum(map(len, starts))
        if level is plan.levels[0]:
            starts.append(np.zeros(0, np.int64))
        else:
            begins, count = _plane_starts(level)
            starts.append(np.where(begins < 0, -1, cells + begins))
            cells += count
        record.first_coarse = sum(map(len, coarse))
        record.pooled = level.pool > 0
        record.step, record.window = level.step, level.pool
        record.start_row, record.start_column = level.start
        if record.pooled:
            after = plan.levels[len(coarse) // 2 + 1]
            for size, left, start in (
                (level.height, after.height, record.start_row),
                (level.width, after.width, record.start_column),
            ):
                j, a = np.divmod(np.arange(size) - start, record.step)
                coarse.append(np.where((j >= 0) & (j < left) & (a < record.window), j, -1))
    last = plan.levels[-1]
    pixels = last.height * last.width
    return Program(
        levels=np.asarray(levels),
        stages=np.array(stages, _STAGE),
        offsets=np.concatenate(all_offsets).astype(np.int64),
        starts=np.concatenate(starts).astype(np.int64),
        cells=cells,
        coarse=np.concatenate([np.zeros(0, np.int64), *coarse]),
        share=1 / pixels**2 if plan.global_pool else 1 / pixels,
        image_factor=entry_factor / channels,
        deviation_factors=_deviation_factors(plan, factors),
        maps=maps,
        channels=channels,
    )


def _factors(plan: KernelPlan) -> tuple[float, list[float]]:
    """Weights of the means that read the first level's input, and each stage's result.

    Whatever a mean reads already contains its weight, at no cost, so that the mean is a plain sum.
    """
    factors: list[float] = []
    factor = 1.0
    for level in reversed(plan.levels):
        if level.pool:
            factor /= level.pool**4
        for op, _ in reversed(level.stages()):
            factors.append(factor)
            factor = op.weight / op.size**2
    return factor, factors[::-1]


def _deviation_factors(plan: KernelPlan, factors: list[float]) -> np.ndarray:
    """Factors (maps,) of the fixed side's deviations; the 1 / (2 pi) in them is the ReLU's."""
    found, remaining = [np.zeros(0)], iter(factors)
    for level in plan.levels:
        for _, rectified in level.stages():
            factor = next(remaining) / (2 * np.pi)
            found += [np.full(level.height * level.width, factor)] if rectified else []
    return np.concatenate(found)


def _plane_starts(level: KernelLevel) -> tuple[np.ndarray, int]:
    """The starts of the planes of all offsets (i - band, j - band), and the number of pixel pairs.

    A start is -1 for an offset that the level does not need.
    """
    rows, columns = (
        np.where(np.isin(offset := np.arange(-band, band + 1), needed), size - np.abs(offset), 0)
        for size, band, needed in zip(
            (level.height, level.width), level.band, level.needed, strict=True
        )
    )
    cells = (rows[:, None] * columns[None]).ravel()
    ends = np.cumsum(cells)
    return np.where(cells > 0, ends - cells, -1), int(ends[-1])
