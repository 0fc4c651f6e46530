"""What the documentation site takes from the code, and how it shows formulas; see mkdocs.yml.

A line `<!-- commands -->` of a page becomes the help of all commands, and a line
`<!-- parameters: jemtrack.module.Class -->` a table of the class's fields. Formulas become MathML,
which browsers show without a script.
"""

import argparse
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from html import unescape
from typing import Any

from latex2mathml.converter import convert

from jemtrack.commands.parser import build_parser
from jemtrack.project.comments import field_docs
from jemtrack.shared.components import imported

_LOG = logging.getLogger("mkdocs.hooks")  # its warnings fail a strict build
_PARAMETERS = re.compile(r"^<!-- parameters: (\S+) -->$", re.M)
# As pymdownx.arithmatex writes them.
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.S)

_LOADED = re.compile(
    r"""<(?:script|img|iframe|link[^>]* rel="?(?:stylesheet|preconnect))"""
    r"""[^>]* (?:src|href)="?(https?:[^" >]+)"""
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in the references."""
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", "\n\n".join(command_sections()))
    return _PARAMETERS.sub(lambda found: parameter_table(imported(found[1])), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas into MathML."""
    html = _BLOCK.sub(lambda found: _mathml(found[1], "block"), html)
    return _INLINE.sub(lambda found: _mathml(found[1], "inline"), html)


def _mathml(escaped: str, display: str) -> str:
    # LaTeX sets a space between a function and what it is of.
    space = '<mspace width="0.17em"/>'
    return convert(unescape(escaped), display=display).replace(
        "<mi>log</mi>", f"<mi>log</mi>{space}"
    )


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn of what a page would load from the network."""
    for address in _LOADED.findall(output):
        _LOG.warning("%s loads %s", page, address)
    return output


def command_sections() -> Iterator[str]:
    """Write a section for each command, with its help."""
    os.environ["COLUMNS"] = "80"  # argparse folds its help there
    yield from _sections(build_parser())


def _sections(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield f"## {command.prog}\n\n```text\n{command.format_help()}```"
                yield from _sections(command)


def parameter_table(cls: type) -> str:
    """Write a Markdown table of the fields of a `@parameters` class: name, default, meaning."""
    docs = field_docs(cls)
    rows = [(f"`{each.name}`", _default(each), docs.get(each.name, "")) for each in fields(cls)]
    head = [("parameter", "default", "meaning"), ("---", "---", "---")]
    if not docs:  # the page explains them
        head, rows = [row[:2] for row in head], [row[:2] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*head, *rows])


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return f"`{field.default_factory()}`"
    return "required" if field.default is MISSING else f"`{field.default}`"
