"""The page's HTML: one file that needs nothing beside it."""

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
