"""Small pieces of the report's HTML, and numbers as a person reads them."""

from collections.abc import Sequence
from html import escape

MINUS, TIMES, NONE = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"


def percent(share: float) -> str:
    """0.9387 -> '93.87 %', held together by a no-break space."""
    return f"{100 * share:.2f}\u00a0%"


def points(share: float) -> str:
    """A difference of shares: '+35.4 points'."""
    return f"{100 * share:+.1f} points".replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """-0.214 -> '−0.21', with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", MINUS)


def number(value: float) -> str:
    """12345 -> '12,345'."""
    return f"{value:,.0f}"


def figure(value: float) -> str:
    """Three significant digits, with a true minus sign; large and small ones as powers of ten."""
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa} {TIMES} 10<sup>{int(exponent)}</sup>".replace("-", MINUS)
    return f"{value:.4g}".replace("-", MINUS)


def plural(count: int, noun: str, nouns: str = "") -> str:
    """'1 image', '10 images'."""
    return f"{number(count)} {noun if count == 1 else nouns or noun + 's'}"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], caption: str, text_columns: int = 1
) -> str:
    """A table of escaped cells; the first `text_columns` columns are words."""

    kinds = [' class="text"' if n < text_columns else "" for n in range(len(header))]

    def cells(row: Sequence[str]) -> str:
        first = f'<th scope="row">{escape(row[0])}</th>'
        rest = (
            f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds[1:], row[1:], strict=True)
        )
        return f"<tr>{first}{''.join(rest)}</tr>"

    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for kind, name in zip(kinds, header, strict=True)
    )
    body = "\n".join(cells(row) for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def fold(uid: str, title: str, body: str) -> str:
    """Something to open; `uid` is unique in the page and kept when it reloads."""
    return f'<details id="{uid}"><summary>{escape(title)}</summary>{body}</details>'


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names with what they are; values are HTML."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in rows if value)
    return f'<dl class="facts">{items}</dl>'


def code(uid: str, text: str) -> str:
    """Code with a button that copies it."""
    return (
        f'<div class="code"><button type="button" data-copy="{uid}">Copy</button>'
        f'<pre tabindex="0"><code id="{uid}">{escape(text)}</code></pre></div>'
    )
