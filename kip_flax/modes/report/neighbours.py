"""The real training images that are nearest to each image of a set, in kernel space."""

from html import escape

from kip_flax.modes.report import style as report_style
from kip_flax.modes.report.facts import Facts
from kip_flax.modes.report.text import fold, number

_UNFOLDED = 20


def section(run: Facts, uid: str) -> str:
    """For each image the real ones nearest to it; empty without an analysis."""
    found = run.analysis
    if found is None or not run.frames:
        return ""
    place = {int(row): at for at, row in enumerate(run.rows)}  # Of a row among the cards.
    items = []
    chosen = report_style.near_rows(run)
    for number_of, at in enumerate(chosen.tolist()):
        row = int(found["nearest_rows"][at])
        name = run.class_names[run.began_as[place[row]]]
        alt = f"Image {row + 1} of the set, {name}"
        own = report_style.tile("last", place[row], len(run.rows), alt)
        tiles = [f"<div>{own}<p>{escape(name)}</p></div>"]
        count = len(found["nearest_labels"][at])
        for n, cosine in enumerate(found["nearest_similarity"][at]):
            real = run.class_names[found["nearest_labels"][at][n]]
            alt = f"Real image of class {real}, cosine {cosine:.3f}"
            picture = report_style.tile("real", number_of * count + n, count * len(chosen), alt)
            tiles.append(f"<div>{picture}<p>{escape(real)}<br>{cosine:.3f}</p></div>")
        items.append(f'<li><div class="row">{"".join(tiles)}</div></li>')
    rest = ""
    if len(items) > _UNFOLDED:
        others = items[_UNFOLDED:]
        rest = fold(f"{uid}-near", f"The other {len(others)}", _list(others))
    return (
        f'<p class="soft">Each image of the set, then the three most alike of '
        f"{number(found['num_train'])} training images (of {number(found['of_train'])}, evenly "
        f"over the classes), with their class and the cosine k(x,&nbsp;y) / "
        f"√(k(x,&nbsp;x)&nbsp;k(y,&nbsp;y)).</p>{_list(items[:_UNFOLDED])}{rest}"
    )


def _list(items: list[str]) -> str:
    return f'<ul class="near">{"".join(items)}</ul>'
