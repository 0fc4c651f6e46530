"""The HTML of an evaluation's page, a Jinja template that `page.render` fills.

The page needs no network and no file beside it.
"""

TEMPLATE = """\
{% macro table(content, words=False) -%}
<div class="scroll"><table{% if words %} class="words"{% endif %}>
<thead><tr>{% for name in content.header %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in content.rows %}
<tr>{% for cell in row %}<td{% if cell.best %} class="best"{% endif %}>{{ cell.text }}
{%- if cell.interval %} <span class="interval">{{ cell.interval }}</span>{% endif %}</td>
{%- endfor %}</tr>{% endfor %}
</tbody></table></div>
{%- endmacro %}

{% macro details(summary, content, words=False) -%}
<details><summary>{{ summary }}</summary>{{ table(content, words) }}</details>
{%- endmacro %}

{% macro picture(panels, legend=()) -%}
<figure>{% if legend %}<p class="legend">{% for name in legend %}
<span><i style="background: {{ colours[loop.index0 % (colours | length)] }}"></i>{{ name }}</span>
{% endfor %}</p>{% endif %}
<div class="panels">{% for svg in panels %}{{ svg | safe }}{% endfor %}</div>
<figcaption>{{ caller() }}</figcaption></figure>
{%- endmacro %}

{% macro summary() %}
<ul>{% for title, text in verdicts %}<li><b>{{ title }}</b> {{ text }}</li>{% endfor %}</ul>
<p>Significant: p &lt; {{ significant }} after Holm's correction for the number of tests. Intervals
are at {{ level }}. Each model was trained once; <code>jemtrack graph --workflow seeds</code>
measures how much trainings vary.</p>
{% endmacro %}

{% macro measures() %}
{{ table(figures) }}
{% call picture(pictures.intervals) %}Each measure with its interval at {{ level }}. Accuracy:
higher is better; the others: lower is better.{% endcall %}
{{ details("All measures", metrics) }}
{% if tests %}{{ details("All tests between models", tests) }}{% endif %}
{% endmacro %}

{% macro calibration() %}
{% call picture(pictures.reliability) %}Bars: accuracy of the images in a bin of confidence, with
its 95% interval; hatched: the gap to the mean confidence; dashed: perfect calibration; grey: the
share of images in each bin. Below the diagonal a model is overconfident.{% endcall %}
{% endmacro %}

{% macro selective() %}
{% call picture(pictures.risk_coverage) %}The error rate of a model that classifies only the images
of which it is most confident.{% endcall %}
{% endmacro %}

{% macro confusion() %}
{% call picture(pictures.confusion) %}Images by label and predicted class; darker: a larger share of
the label.{% endcall %}
{% endmacro %}

{% macro energies() %}
{% call picture(pictures.energies, image_sets) %}Distribution of the energies of images, training
images and outliers. Outliers should lie apart, at higher energy. Energies of two models cannot be
compared.
{%- endcall %}
{% endmacro %}

{% macro outliers() %}
<p>AUROC: the probability that an image of the data set has a higher score than an outlier; .5 is
guessing, 1 is perfect. No score was fitted to outliers.</p>
{{ table(auroc) }}
{% call picture(pictures.roc, scores) %}ROC curves: images above a threshold of the score, over
outliers above it.{% endcall %}
{{ details("All measures", detection) }}
{% if outlier_tests %}{{ details("All tests between models", outlier_tests) }}{% endif %}
{% endmacro %}

{% macro robustness() %}
{{ table(accuracies) }}
{% call picture(pictures.robustness, page.results.models) %}Accuracy over the strength of
a corruption (1 to 5) or the radius of an attack (pixels from 0 to 1), with its 95% interval.
{%- endcall %}
{% if not attacked %}<p>No attacks: they need the Adversarial Robustness Toolbox, which was not
installed (<code>pip install 'jemtrack[attacks]'</code>).</p>{% endif %}
{% endmacro %}

{% macro samples() %}
<p>Where Langevin chains end that climb the density of each class. The distance is a kernel distance
between samples and test images on the features of this project's own classifier; it is neither FID
nor KID, and only compares the models of this page.</p>
{{ table(sample_metrics) }}
{% for model, png in grids.items() %}
<figure><img class="pixels" alt="Samples of {{ model }}" src="data:image/png;base64,{{ png }}">
<figcaption>Samples of {{ model }}, a row a class.</figcaption></figure>
{% endfor %}
{% endmacro %}

{% macro provenance() %}
<p>Code: {{ page.code }}
{%- if page.changed_files %}, with changes in {{ page.changed_files | join(", ") }}{% endif %}.</p>
<p>Model files by their MD5, as in <code>dvc.lock</code>; <code>git log -S MD5 --
dvc.lock</code> finds the commits that have a model.</p>
{{ table(md5, words=True) }}
{% for stage, content in parameters.items() %}
{{ details("Parameters of " ~ stage, content, words=True) }}
{% endfor %}
{% endmacro %}

{% set sections = {
  "Summary": summary, "Measures": measures, "Calibration": calibration,
  "Selective classification": selective, "Confusion": confusion, "Energies": energies,
  "Out-of-distribution detection": outliers if auroc, "Robustness": robustness if accuracies,
  "Samples": samples if grids, "Provenance": provenance} -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       margin: 0 auto; padding: 1rem; max-width: 62rem; }
h1 { font-size: 1.7rem; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-bottom: .15rem;
     border-bottom: 1px solid #d5dde5; }
p, li { max-width: 46rem; } code { font-size: .9em; overflow-wrap: anywhere; }
.facts { color: #444; } .facts b { color: #1a1a1a; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e2e2e2;
         white-space: nowrap; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
thead th { border-bottom: 2px solid #888; }
td.best { font-weight: 700; background: #eaf3fb; }
.interval { color: #666; font-size: .85em; font-weight: 400; }
figure { margin: .8rem 0; } figcaption { color: #444; font-size: .9rem; max-width: 46rem; }
.legend { margin: .3rem 0; font-size: .85rem; }
.legend span { margin-right: 1rem; white-space: nowrap; }
.legend i { display: inline-block; width: 1.1em; height: .3em; margin: 0 .4em .2em 0; }
.panels { display: flex; flex-wrap: wrap; gap: .4rem; }
figure svg { max-width: 100%; height: auto; flex: none; }
img.pixels { image-rendering: pixelated; width: 100%; max-width: 40rem; }
.first { border-left: 4px solid #0072b2; padding: .1rem 1rem; background: #f6f9fc; }
.first h2 { margin-top: .6rem; border: 0; }
details { margin: .6rem 0; } summary { cursor: pointer; color: #0b5394; }
nav { margin-bottom: 1rem; } nav a { margin-right: .8rem; white-space: nowrap; color: #0b5394; }
@media print { * { print-color-adjust: exact; }
  body { font-size: 10pt; max-width: none; padding: 0; } nav { display: none; }
  figure, table { break-inside: avoid; } h2 { break-after: avoid; } .scroll { overflow: visible; }
  .panels svg { max-width: 32%; }
  details::details-content { content-visibility: visible; height: auto; } }
@media (max-width: 40rem) { body { padding: .7rem; } h1 { font-size: 1.35rem; } }
</style>
</head>
<body>
<header>
<h1>{{ page.title }}</h1>
<p class="facts">measured on
<b>{{ page.facts.n_images }} {{ page.facts.split }} images of {{ page.facts.dataset }}</b> ·
noise <b>{{ "as in training" if page.facts.noise else "none" }}</b> ·
outliers <b>{% for name, count in page.facts.outliers.items() %}{{ count }} {{ name }}
{%- if not loop.last %}, {% endif %}{% else %}none{% endfor %}</b> ·
code <b>{{ page.code }}{% if page.changed_files %} with changes{% endif %}</b></p>
<nav>{% for name, content in sections.items() if content -%}
<a href="#{{ name | anchor }}">{{ name }}</a>
{% endfor %}</nav>
</header>
<main>
{% for name, content in sections.items() if content %}
<section id="{{ name | anchor }}"{% if loop.first %} class="first"{% endif %}>
<h2>{{ name }}</h2>
{{ content() }}
</section>
{% endfor %}
</main>
</body>
</html>
"""
