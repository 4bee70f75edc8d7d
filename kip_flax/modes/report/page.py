"""The page: what was learned, how well, from what and at what cost; then everything behind it.

One file without anything from outside: style sheet and script are in it, pictures too.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources

from kip_flax import __version__
from kip_flax.modes.report import compare as report_compare
from kip_flax.modes.report import images as report_images
from kip_flax.modes.report import neighbours as report_neighbours
from kip_flax.modes.report import results as report_results
from kip_flax.modes.report import setup as report_setup
from kip_flax.modes.report import style as report_style
from kip_flax.modes.report.facts import Facts
from kip_flax.modes.report.text import number, percent, plural, points
from kip_flax.runtime import console

RELOAD_SECONDS = 15


def page(runs: Sequence[Facts], awaited: bool = False) -> str:
    """HTML of one run, or of several side by side.

    While it is `awaited` that a page is written again, or its one run is at work, it reloads.
    """
    several = len(runs) > 1
    names = ", ".join(run.workdir.name for run in runs)
    styles = "\n".join(report_style.style(run, f"r{n}") for n, run in enumerate(runs))
    awaited = awaited or (runs[0].running and not several)
    body = "\n".join(_run(run, f"r{n}", several, awaited) for n, run in enumerate(runs))
    if several:
        body = f'{report_compare.head(runs)}<div class="runs">{body}</div>'
    reload = f' data-reload="{RELOAD_SECONDS}"' if awaited else ""
    kind = ' class="wide"' if several else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(names)} - kip_flax report</title>
<link rel="icon" href="data:,">
<style>
{_packaged("report.css")}{styles}
</style>
</head>
<body{kind}{reload}>
<main class="sheet">
{body}
{_footer()}
</main>
<script>
{_packaged("report.js")}</script>
</body>
</html>
"""


def _run(run: Facts, uid: str, several: bool, awaited: bool) -> str:
    heads = {
        "Images": ("What was learned", report_images.section(run, uid)),
        "Curves": ("How it went", report_results.curves(run, uid)),
        "Mistakes": ("What it gets right and wrong", report_results.mistakes(run, uid)),
        "Neighbours": ("The nearest real images", report_neighbours.section(run, uid)),
        "Spectrum": ("Spectrum of the kernel", report_results.spectrum(run, uid)),
        "Loading": ("Load the set", report_setup.use(run, uid)),
        "Configuration": ("Configuration", report_setup.configuration(run, uid)),
        "Cost": ("Time, hardware, versions", report_setup.cost(run)),
    }
    heads = {name: told for name, told in heads.items() if told[1]}
    links = "".join(f'<li><a href="#{uid}-{name.lower()}">{name}</a></li>' for name in heads)
    level = 3 if several else 2
    parts = [
        f'<section id="{uid}-{name.lower()}"><h{level}>{title}</h{level}>{body}</section>'
        for name, (title, body) in heads.items()
    ]
    if run.analysis is None:
        parts.insert(2, _no_analysis(run, awaited))
    step = run.frames[-1].step if run.frames else 0
    one = " one" if report_images.one_picture(run) else ""
    return "\n".join(
        [
            f'<article class="run{one}" id="{uid}" data-step="{step}">',
            _header(run, 2 if several else 1),
            f'<nav aria-label="Parts of the report"><ul class="links">{links}</ul></nav>',
            *parts,
            "</article>",
        ]
    )


def _header(run: Facts, level: int) -> str:
    first, last = run.evaluations[0], run.evaluations[-1]
    data, size = run.result.get("data", {}), run.size or int(run.config["support.size"])
    dataset = data.get("name", run.config["dataset.name"])
    status = run.result["status"]
    title = f"{plural(size, 'learned image')} of {dataset}"
    if run.config["algorithm"] == "ls":
        title = f"{plural(size, 'real image')} of {dataset} with solved labels"
    if "train" in data:
        title += f", in place of {number(data['train'])}"
    kernel = f"{run.config['kernel.architecture']}, depth {run.config['kernel.depth']}"
    count = number(data["tested"]) if "tested" in data else "the"
    tested = f"{count} {run.split} images"
    lead = (
        f"Kernel ridge regression (infinitely wide {escape(kernel)}) on them gets "
        f"{percent(last['accuracy'])} of {tested} right; on what they started from, "
        f"{percent(first['accuracy'])}."
    )
    return f"""<header>
<p class="top"><span>{escape(run.workdir.name)}</span><span class="chip {escape(status)}">\
{escape(_status(run))}</span><span>{_written()}</span></p>
<h{level}>{escape(title)}</h{level}>
<p class="lead">{lead}</p>
<dl class="tiles">{"".join(_tiles(run, size))}</dl>
</header>"""


def _tiles(run: Facts, size: int) -> list[str]:
    first, last = run.evaluations[0], run.evaluations[-1]
    data, config = run.result.get("data", {}), run.config
    gain = f"{points(last['accuracy'] - first['accuracy'])} since step 0"
    per_class = size / max(1, len(run.class_names))
    tiles = [(f"{run.split.capitalize()} accuracy", percent(last["accuracy"]), gain, " main")]
    level = report_results.solved(run)
    if level is not None:
        seen = f"same images, best labels for {number(run.analysis['num_train'])}"  # type: ignore[index]
        tiles.append(("Label Solve", percent(level[0]), f"{seen} training images", ""))
    labels = "labels learned" if report_images.labels_changed(run) else "labels fixed"
    if config["algorithm"] == "ls":
        labels = "labels solved"
    told = f"{per_class:g} per class, {labels}"
    if "train" in data:
        told = f"one for every {number(data['train'] / size)}; {told}"
    tiles.append(("Images", number(size), told, ""))
    seconds, steps = console.duration(run.result["seconds"]), plural(int(last["step"]), "step")
    if config["algorithm"] == "ls":
        steps = plural(int(last["step"]), "tile") + " of targets"
    tiles.append(("Cost", seconds, f"{steps} on {run.result.get('hardware', 'unknown')}", ""))
    return [
        f"<div><dt>{name}</dt><dd class='value{kind}'>{value}</dd><dd>{escape(told)}</dd></div>"
        for name, value, told, kind in tiles
    ]


def _status(run: Facts) -> str:
    step = int(max([run.evaluations[-1]["step"], *(row["step"] for row in run.history[-1:])]))
    if not run.running or run.config["algorithm"] == "ls":
        return f"{run.result['status']} at step {number(step)}"
    return f"running, step {number(step)} of {number(run.config['num_steps'])}"


def _no_analysis(run: Facts, awaited: bool) -> str:
    if run.running or awaited:
        told = "Confusion matrix, neighbours and spectrum come when the run is at its end."
    else:
        told = (
            "Confusion matrix, neighbours and spectrum were not computed for this set: "
            f"<code>python main.py --mode=report --workdir={escape(str(run.workdir))}</code> "
            "makes up for it where the data are at hand and report.num_train is above 0."
        )
    return f'<p class="panel soft">{told}</p>'


def _written() -> str:
    now = datetime.now(UTC)
    return f'<time datetime="{now:%Y-%m-%dT%H:%M:%SZ}">{now:%d %B %Y, %H:%M:%S} UTC</time>'


def _footer() -> str:
    return (
        f"<footer><p>kip_flax {__version__}. Accuracies are those of kernel ridge regression with "
        "the kernel named above; networks trained on the set usually do less well. mse is half the "
        "mean squared error to centred labels. The figures are of one run with one seed.</p>"
        "</footer>"
    )


def _packaged(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
