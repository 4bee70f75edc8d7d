"""Self-contained HTML pages: templates, and the filters that they use.

A package keeps its templates in its folder `templates`. All packages share those beside this file:
the frame of a page, its style sheet (`base.css`) and parts such as a table. Values are escaped.
"""

import base64
import functools
import math
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kip_flax.runtime import console

MINUS, TIMES, NONE = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"


def render(package: str, template: str, **values: Any) -> str:
    """The text of a template of `package`, filled in with `values`.

    Raises:
        jinja2.UndefinedError: the template uses a name that is not in `values`.
    """
    return _environment(package).get_template(template).render(**values)


@functools.cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("kip_flax.modes")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= {
        "count": console.count,
        "data_url": data_url,
        "duration": console.duration,
        "fixed": fixed,
        "number": number,
        "percent": percent,
        "plural": plural,
        "points": points,
        "scientific": scientific,
        "signed": signed,
    }
    environment.globals |= {"NONE": NONE, "TIMES": TIMES}
    return environment


def percent(share: float) -> str:
    """0.9387 -> '93.87 %', with a no-break space."""
    return f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


def points(share: float) -> str:
    """0.354, a difference of shares -> '+35.4 points'."""
    return f"{round(100 * share, 1) + 0.0:+.1f} points".replace("-", MINUS)  # No -0.0.


def signed(value: float, digits: int = 2) -> str:
    """-0.214 -> '−0.21', with a true minus sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)  # No -0.00.


def fixed(value: float, digits: int = 1) -> str:
    """3.14159 -> '3.1'."""
    return f"{value:.{digits}f}"


def number(value: float) -> str:
    """12345 -> '12,345'."""
    return f"{value:,.0f}"


def plural(count: int, noun: str) -> str:
    """'1 image', '10 images', '10 tiles of targets'."""
    return f"{number(count)} {noun if count == 1 else nouns(noun)}"


def nouns(noun: str) -> str:
    """The plural of a regular noun: 'images', 'tiles of targets'."""
    head, of, rest = noun.partition(" of ")
    return f"{head}s{of}{rest}"


def scientific(value: float) -> tuple[str, str]:
    """Three or four digits, and the exponent of ten of a very large or small value, or ''."""
    if math.isinf(value):
        return "\N{INFINITY}", ""
    if value and not 1e-3 <= abs(value) < 9999.5:  # From there on `.4g` writes an exponent.
        digits, exponent = f"{value:.2e}".split("e")
        return digits.replace("-", MINUS), str(int(exponent)).replace("-", MINUS)
    return f"{value:.4g}".replace("-", MINUS), ""


def shortened(text: str, most: int) -> str:
    """The text, cut to `most` characters, the last of them an ellipsis, if it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def data_url(png: bytes) -> Markup:
    """A PNG as a data URL; base64 needs no escaping."""
    return Markup("data:image/png;base64," + base64.b64encode(png).decode())
