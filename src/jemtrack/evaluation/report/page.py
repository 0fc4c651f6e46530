"""The parts of a page: sections of paragraphs, tables and pictures, put into one HTML file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from jemtrack.evaluation.report.pictures import as_svg
from jemtrack.evaluation.report.template import PAGE, TABLE

_HTML = Environment(autoescape=True, keep_trailing_newline=True)


@dataclass(frozen=True)
class Cell:
    """A table's cell: its text, the interval beside it, and whether it is the best of its row."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass
class Section:
    """A part of the page under a title; what is added stands in that order."""

    title: str
    parts: list[Markup] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Give the name by which a link leads here."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")

    def text(self, words: str) -> None:
        """Add a paragraph."""
        self.parts.append(Markup("<p>{}</p>").format(words))

    def points(self, lines: Sequence[str]) -> None:
        """Add a list; what stands between two asterisks is bold."""
        items = [Markup("<li>{}</li>").format(_with_bold(line)) for line in lines]
        self.parts.append(Markup("<ul>{}</ul>").format(Markup("").join(items)))

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        *,
        words: bool = False,
        under: str = "",
    ) -> None:
        """Add a table, of words or of numbers; `under` names what must be clicked to see it."""
        made = Markup(_HTML.from_string(TABLE).render(header=header, rows=rows, words=words))
        if under:
            made = Markup("<details><summary>{}</summary>{}</details>").format(under, made)
        self.parts.append(made)

    def picture(self, panels: Sequence[Figure], caption: str) -> None:
        """Add a picture; as many of its panels are side by side as the page is wide."""
        drawn = Markup("").join(Markup(as_svg(panel)) for panel in panels)
        self._figure(Markup('<div class="panels">{}</div>').format(drawn), caption)

    def image(self, png_base64: str, caption: str) -> None:
        """Add an image of pixels that stay squares, from a PNG file in base64."""
        source = Markup('<img class="pixels" alt="{}" src="data:image/png;base64,{}">')
        self._figure(source.format(caption, png_base64), caption)

    def _figure(self, content: Markup, caption: str) -> None:
        whole = Markup("<figure>{}<figcaption>{}</figcaption></figure>")
        self.parts.append(whole.format(content, caption))


def page(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Give the HTML of a page that needs no network and no file beside it."""
    return _HTML.from_string(PAGE).render(title=title, facts=facts, sections=sections)


def _with_bold(line: str) -> Markup:
    parts = [escape(part) for part in line.split("*")]
    bold = [Markup("<b>{}</b>").format(part) if at % 2 else part for at, part in enumerate(parts)]
    return Markup("").join(bold)
