"""The parts of a page: sections of paragraphs, tables and pictures, put into one HTML file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from jemtrack.evaluation.report.pictures import as_svg

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       margin: 0 auto; padding: 1rem; max-width: 62rem; }
h1 { font-size: 1.7rem; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem; }
p, li { max-width: 46rem; }
.facts { color: #444; } .facts b { color: #1a1a1a; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e2e2e2;
         white-space: nowrap; }
th:first-child, td:first-child, .words td { text-align: left; }
thead th { border-bottom: 2px solid #888; }
td.best { font-weight: 700; background: #eaf3fb; }
.interval { color: #666; font-size: .85em; }
figure { margin: .8rem 0; } figcaption { color: #444; font-size: .9rem; max-width: 46rem; }
.panels { display: flex; flex-wrap: wrap; gap: .4rem; }
figure svg { max-width: 100%; height: auto; flex: none; }
img.pixels { image-rendering: pixelated; width: 100%; max-width: 40rem; }
.short { border-left: 4px solid #0072b2; padding: .1rem 1rem; background: #f6f9fc; }
details { margin: .6rem 0; } summary { cursor: pointer; color: #0b5394; }
nav a { margin-right: .8rem; white-space: nowrap; }
@media print { body { font-size: 10pt; max-width: none; padding: 0; } nav { display: none; }
  figure, table { break-inside: avoid; } h2 { break-after: avoid; } .scroll { overflow: visible; }
  .panels svg { max-width: 32%; }
  details::details-content { content-visibility: visible; height: auto; } }
@media (max-width: 40rem) { body { padding: .7rem; } h1 { font-size: 1.35rem; } }
</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<p class="facts">{% for name, value in facts.items() -%}
{{ name }} <b>{{ value }}</b>{{ " · " if not loop.last }}
{%- endfor %}</p>
<nav>{% for section in sections -%}
<a href="#{{ section.anchor }}">{{ section.title }}</a>
{% endfor %}</nav>
</header>
<main>
{% for section in sections %}
<section id="{{ section.anchor }}"{% if loop.first %} class="short"{% endif %}>
<h2>{{ section.title }}</h2>
{% for part in section.parts %}{{ part }}
{% endfor %}</section>
{% endfor %}
</main>
</body>
</html>
"""

TABLE = """\
<div class="scroll"><table{% if words %} class="words"{% endif %}>
<thead><tr>{% for name in header %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}
<tr>{% for cell in row %}<td{% if cell.best %} class="best"{% endif %}>{{ cell.text }}
{%- if cell.interval %} <span class="interval">{{ cell.interval }}</span>{% endif %}</td>
{%- endfor %}</tr>{% endfor %}
</tbody></table></div>"""


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
