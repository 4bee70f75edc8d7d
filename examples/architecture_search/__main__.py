"""Can ten distilled images find the best network? An architecture search.

    python -m examples.architecture_search [--dataset=digits] [--data=data] [--runs=DIR]
        [--kinds=finite,ntk,nngp] [--set=FILE] [--kernel-set=FILE] [--small]

Each network of a grid is trained on a distilled set, on as many random and herding images, and on
the whole (Zhao, Mopuri, Bilen, ICLR 2021, section 4.2). Infinite networks, NTKs and NNGPs, are
ranked by kernel ridge regression. The question is how far each set orders them as the whole does.
The best is chosen on held-out training images; the test images order those trained on the whole.

--dataset is digits, which needs no data, or mnist. --kinds takes a part of the search; the rest may
be added later. --set and --kernel-set take distilled sets for
the finite and the infinite networks; without them the sets are distilled first. A network that is
finished is kept in RUNS/KIND.json and not trained again. The figures go to RUNS/figures.json, the
tables to RUNS/tables.md, the picture to RUNS/ranks.png. --small takes the digits, few networks and
few steps.
"""

import argparse
import functools
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax

from examples.architecture_search import finite, images, infinite, picture, ranks
from examples.architecture_search.images import Images
from examples.architecture_search.kept import Kept, Row
from examples.architecture_search.space import SEARCHES, SMALL, Search, groups, name
from examples.arguments import Parser, folder
from kip_flax import export
from kip_flax.export import Distilled
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.runs import setup
from kip_flax.runtime import files, hardware, sharding
from kip_flax.runtime.errors import UserError


class Measures(Protocol):
    """Measures one network at a time."""

    def measure(self, design: Any) -> Row:
        """The row of a network, see `finite.Networks.measure`."""


Make = Callable[[dict[str, ImageSet], Images, Search], Measures]
KINDS: dict[str, tuple[str, Make]] = {
    "finite": ("Finite networks", finite.Networks),
    "ntk": ("NTKs", infinite.Kernels),
    "nngp": ("NNGPs", infinite.Kernels),
}


@dataclass(frozen=True, eq=False)
class Space:
    """Networks of one kind, and the images that rank them.

    Attributes:
        kind: one of `KINDS`.
        distilled: the set that replaces the whole.
        making: core seconds to make the set; None if it was given.
        images: real images, preprocessed like the set.
        kept: the rows that are finished.
    """

    kind: str
    distilled: Distilled
    making: float | None
    images: Images
    kept: Kept

    def explored(self, search: Search) -> dict[str, Row]:
        """A row for each network, by its name; networks that are not kept are trained."""
        self.kept.read()  # Another process may have added some since.
        title, make = KINDS[self.kind]
        proxies = images.proxies(self.distilled, self.images, search.seeds)
        networks = make(proxies, self.images, search)
        designs = search.grids[self.kind]
        rows = {}
        for number, design in enumerate(designs, 1):
            row = self.kept.row(name(design), functools.partial(networks.measure, design))
            rows[name(design)] = row
            print(f"{title} {number}/{len(designs)}: {name(design)}: {_words(row)}", flush=True)
        return rows

    @property
    def words(self) -> str:
        """'10 distilled images, made in 80 core seconds'."""
        made = f"from {self.distilled.path.name}"
        if self.making is not None:
            made = f"made in {self.making:.0f} core seconds"
        return f"{len(self.distilled.images)} distilled images, {made}"


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing, prints the tables, draws the picture; 2 on an error."""
    try:
        args = _arguments(argv)
        _search(args, SMALL if args.small else SEARCHES[args.dataset], _folder(args))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from there")
    return 0


def _folder(args: argparse.Namespace) -> Path:
    name = "search_digits_small" if args.small else f"search_{args.dataset}"
    return Path(args.runs or f"runs/{name}")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("examples.architecture_search", __doc__)
    parser.add_argument("--dataset", default="digits", choices=SEARCHES)
    parser.add_argument("--data", default="data", help="folder of MNIST's files")
    parser.add_argument(
        "--runs", type=folder, help="folder for results and figures; runs/search_DATASET"
    )
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of these")
    parser.add_argument("--set", default="", help="distilled set for the finite networks")
    parser.add_argument("--kernel-set", default="", help="distilled set for the infinite ones")
    parser.add_argument("--small", action="store_true", help="few networks, few steps")
    args = parser.parse_args(argv)
    args.kinds = tuple(dict.fromkeys(kind.strip() for kind in args.kinds.split(",")))
    if not set(args.kinds) <= set(KINDS):
        raise UserError(f"--kinds is {','.join(args.kinds)!r}: take some of {', '.join(KINDS)}.")
    _check_all_are_read(args)
    return args


def _check_all_are_read(args: argparse.Namespace) -> None:
    if args.small and args.dataset != "digits":
        raise UserError("--small takes the digits: leave out --dataset.")
    if args.set and "finite" not in args.kinds:
        raise UserError("--set is for the finite networks: add 'finite' to --kinds.")
    if args.kernel_set and set(args.kinds) == {"finite"}:
        raise UserError("--kernel-set is for infinite networks: add 'ntk' or 'nngp' to --kinds.")


def _search(args: argparse.Namespace, search: Search, runs: Path) -> None:
    loaded = images.load(search, args.data)
    given = {kind: args.set if kind == "finite" else args.kernel_set for kind in args.kinds}
    # Given files first, and all sets before networks, so that mistakes are reported early.
    by_kind = {
        kind: _space(kind, given[kind], args.data, search, loaded, runs)
        for kind in sorted(given, key=lambda kind: not given[kind])
    }
    spaces = [by_kind[kind] for kind in given]
    print(f"{search.dataset} on {hardware.hardware()}", flush=True)
    with files.locked(runs / ".lock", f"the folder {runs}"):
        found = {KINDS[space.kind][0]: space.explored(search) for space in spaces}
        _write(found, spaces, search, runs)


def _write(
    found: Mapping[str, dict[str, Row]], spaces: list[Space], search: Search, runs: Path
) -> None:
    """Prints the tables, and writes these, the figures and the picture."""
    tables = [
        _tables(title, rows, space, groups(search.grids[space.kind]))
        for (title, rows), space in zip(found.items(), spaces, strict=True)
    ]
    print(*tables, sep="\n\n")
    files.write_bytes_atomic(runs / "tables.md", ("\n\n".join(tables) + "\n").encode())
    figures: dict[str, Any] = {"hardware": hardware.hardware()}
    for rows, space in zip(found.values(), spaces, strict=True):
        rankings = [vars(one) for one in ranks.rankings(rows)]
        figures[space.kind] = {"set": space.words, "rankings": rankings, "networks": rows}
    files.write_json(runs / "figures.json", figures)
    picture.draw(found, runs / "ranks.png")


def _space(
    kind: str, given: str, data_dir: str, search: Search, loaded: images.Loaded, runs: Path
) -> Space:
    """A space with its set, which is read from the file `given` or made in RUNS/set_KIND."""
    making = None
    if given:
        distilled = export.load_distilled(given)
        _warn_of_seen(distilled, search.held_out)
    else:
        distilled, making = images.made(search, kind, data_dir, runs / f"set_{kind}")
    ready = images.prepared(search, loaded, distilled)
    settings = {
        field: value
        for field, value in vars(search).items()
        if field not in ("grids", "sets")  # A grid may grow.
    }
    crc = zlib.crc32(distilled.images.tobytes(), zlib.crc32(distilled.labels.tobytes()))
    settings |= {"set": crc, "data": setup.fingerprint(loaded[0])}
    settings |= {"test images": setup.fingerprint_of_tests(loaded[0])}
    return Space(kind, distilled, making, ready, Kept(runs / f"{kind}.json", settings))


def _warn_of_seen(distilled: Distilled, held_out: float) -> None:
    """Says so if a set may have learned from the images that choose the best network."""
    fields = distilled.provenance.get("config", {})
    if fields.get("dataset.validation", 0) != held_out:
        print(
            f"note: {distilled.path} was made without dataset.validation={held_out:g}, so the "
            f"held-out images, which choose the best network, may be among those that it learned "
            f"from",
            flush=True,
        )


def _tables(
    title: str, rows: dict[str, Row], space: Space, alike: Mapping[str, Sequence[str]]
) -> str:
    """The rankings among all networks, then those among the groups `alike`, if there are any."""
    tables = f"{ranks.table(title, rows)} {space.words}."
    return f"{tables}\n\n{ranks.table_of_groups(title, rows, alike)}" if alike else tables


def _words(row: Row) -> str:
    """'distilled 91.20, random 75.10, herding 74.00, whole 97.20 % of held-out images'."""
    shares = [f"{by} {100 * row[by]['held_out']:.2f}" for by in (*images.PROXIES, images.WHOLE)]
    return f"{', '.join(shares)} % of held-out images"


if __name__ == "__main__":
    sharding.prepare_cpu_devices()
    jax.config.update("jax_num_cpu_devices", hardware.usable_cores())
    sharding.keep_programs()
    sys.exit(main())
