"""What the site does with pages: adds those of results/, shows formulas, loads pictures late."""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
_SHOWN = {".md", ".png", ".json"}  # Of results/; the sets themselves stay in the repository.
# What pymdownx.arithmatex leaves, in line and as a block.
_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\(?:\(|\[)(.*?)\\(?:\)|\])</(?:span|div)>', re.DOTALL
)


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Adds the pages and pictures of results/, which lies beside docs/ in the repository."""
    for path in sorted((ROOT / "results").rglob("*")):
        if path.suffix in _SHOWN and not path.name.startswith("_"):  # Nor parts of pages.
            name = path.relative_to(ROOT).as_posix()
            files.append(
                File(name, str(ROOT), config.site_dir, False, inclusion=InclusionLevel.NOT_IN_NAV)
            )
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns links of the repository into links of the site, where results/ lies within docs/."""
    if page.file.src_uri.startswith("results/"):
        markdown = re.sub(r"\]\(([\w-]+)/\)", r"](\1/README.md)", markdown)
        return re.sub(r"\]\(((?:\.\./)+)docs/", r"](\1", markdown)
    return markdown.replace("](../results/", "](results/")


def on_page_content(content: str, **_: Any) -> str:
    """Replaces every formula of a page, and loads pictures when they come into sight."""
    return _FORMULA.sub(_mathml, content).replace("<img ", '<img loading="lazy" ')


def _mathml(found: re.Match[str]) -> str:
    """MathML, which browsers show by themselves: no script, no network."""
    display = "block" if found[1] == "div" else "inline"
    return convert(html.unescape(found[2]).strip(), display=display)
