"""The site: its pages, and what they take from the code; `make docs` checks the links."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest
import yaml
from docs.hooks import command_sections, on_page_content, on_page_markdown, on_post_page
from mkdocs.config import load_config

from jemtrack.commands.parser import build_parser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def pages(nav: Any) -> list[str]:
    """List the files of a navigation."""
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    return [page for entry in entries for page in pages(entry)]


def test_the_navigation_lists_each_page_once():
    listed = pages(load_config(str(ROOT / "mkdocs.yml")).nav)

    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_each_command_is_in_the_reference():
    listed = re.findall(r"^    (\w+) ", build_parser().format_help(), re.M)
    reference = "\n".join(command_sections())

    assert len(listed) > 10
    for command in listed:
        assert f"## jemtrack {command}\n\n```text\nusage: jemtrack {command} " in reference
    assert "## jemtrack scratch prune\n" in reference
    assert max(map(len, reference.splitlines())) <= 80


def test_each_parameter_is_in_the_reference():
    page = on_page_markdown((DOCS / "parameters.md").read_text())
    stages = yaml.safe_load((ROOT / "params.yaml").read_text())
    groups = [group for stage in stages.values() for group in stage.values()]
    names = {name for group in groups for name in group if name != "_cls"}

    assert {"lr", "n_valid", "entropy_weight", "score_clamp", "l2_radii", "top_k"} <= names
    assert names <= {*re.findall(r"^\| `(\w+)` \|", page, re.M)}
    # A default, and what the docstring says.
    assert "| `lr` | `0.001` | the optimizer's learning rate. |" in page
    assert "<!--" not in page


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_s_page_has_its_cells(path: Path):
    page = (DOCS / "notebooks" / f"{path.stem}.md").read_text()
    at = 0

    for cell in nbformat.read(path, as_version=4).cells:
        # In this order; "make notebooks" writes the pages.
        at = page.index(cell.source.strip(), at)
    assert "![Figure of the cell above](" in page
    assert not re.search(r"/(tmp|home|root|work)/|\x1b", page)


def formulas() -> list[str]:
    text = "\n".join(path.read_text() for path in sorted(DOCS.glob("*.md")))
    blocks = re.findall(r"^\$\$\n(.*?)\n\$\$$", text, re.M | re.S)
    text = re.sub(r"```.*?```|^\$\$.*?^\$\$$", "", text, flags=re.M | re.S)
    return [*blocks, *re.findall(r"(?<![\w\\$])\$([^$\n]+)\$", text)]


def test_formulas_become_mathml():
    assert len(formulas()) > 50
    for formula in formulas():
        escaped = formula.replace("&", "&amp;").replace("<", "&lt;")
        for tag, start, end in (("span", r"\(", r"\)"), ("div", r"\[", r"\]")):
            html = on_page_content(f'<{tag} class="arithmatex">{start}{escaped}{end}</{tag}>')

            shown = ElementTree.fromstring(html)
            assert shown.tag == "{http://www.w3.org/1998/Math/MathML}math"
            # What the converter does not know stays as it is.
            assert not re.search(r"[\\&]", "".join(shown.itertext())), formula


def test_what_a_page_would_load_from_the_network_is_a_warning(caplog):
    on_post_page('<a href="https://dvc.org">DVC</a><img src="images/report.png">', page="here")
    assert not caplog.records

    on_post_page('<script defer src="https://cdn.example/x.js"></script>', page="here")
    assert "here loads https://cdn.example/x.js" in caplog.text
