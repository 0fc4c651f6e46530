"""The HTML of a page of results: Jinja templates.

A page is made of macros, sections of its own, which end in naming them (`sections`) with a macro
`facts` for its head, and the frame. It needs no network and no file beside it.
"""

import re
from base64 import b64encode
from typing import Any

from jemtrack.evaluation.report.labels import kind_label


def rendered(sections: str, **content: Any) -> str:
    """Fill a page with the content that its sections name."""
    from jinja2 import Environment, StrictUndefined  # an extra, which the library does without

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "kind": kind_label,
        "anchor": lambda name: re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        "png": lambda content: f"data:image/png;base64,{b64encode(content).decode()}",
    }
    template = environment.from_string(_MACROS + sections + _FRAME)
    return template.render(**content).lstrip()  # the macros leave empty lines before the page


_MACROS = """\
{% macro table(content, name, words=False) -%}
<div class="scroll" role="region" aria-label="{{ name }}" tabindex="0">
<table{% if words %} class="words"{% endif %} aria-label="{{ name }}">
<thead><tr>
{% for title in content.header %}<th scope="col">{{ title }}</th>{% endfor %}
</tr></thead>
<tbody>{% for row in content.rows %}
<tr>{% for cell in row %}{% if loop.first %}<th scope="row">{{ cell.text }}</th>{% else -%}
<td{% if cell.best %} class="best"{% endif %}>{{ cell.text }}
{%- if cell.interval %} <span class="interval">{{ cell.interval }}</span>{% endif %}</td>
{%- endif %}{% endfor %}</tr>{% endfor %}
</tbody></table></div>
<p class="download">{{ name }}:{% for form, file, address in content.downloads(name | anchor) %}
 <a download="{{ file }}" href="{{ address }}">{{ form }}</a>{% endfor %}</p>
{%- endmacro %}

{% macro details(name, content, words=False) -%}
<details><summary>{{ name }}</summary>{{ table(content, name, words) }}</details>
{%- endmacro %}

{% macro picture(panels, legend=()) -%}
<figure>{% if legend %}<p class="legend">{% for name in legend %}
<span><i style="background: {{ colours[loop.index0 % (colours | length)] }}"></i>{{ name }}</span>
{% endfor %}</p>{% endif %}
<div class="panels">{% for svg in panels %}{{ svg | safe }}{% endfor %}</div>
<figcaption>{{ caller() }}</figcaption></figure>
{%- endmacro %}

{% macro papers() %}
<dl>{% for name, paper in references.items() %}
<dt>{{ name }}</dt><dd>{{ paper }}</dd>{% endfor %}
</dl>
{% endmacro %}

"""

# Of an evaluation of images, which `page.render` fills.
IMAGE_SECTIONS = """\
{% macro facts() -%}
<p class="facts">measured on
<b>{{ page.facts.n_images }} {{ page.facts.split }} images of {{ page.facts.dataset }}</b> ·
noise <b>{{ "as in training" if page.facts.noise else "none" }}</b> ·
outliers <b>{% for name, count in page.facts.outliers.items() %}{{ count }} {{ name }}
{%- if not loop.last %}, {% endif %}{% else %}none{% endfor %}</b> ·
code <b>{{ page.code }}{% if page.changed_files %} with changes{% endif %}</b></p>
{%- endmacro %}

{% macro summary() %}
<ul>{% for title, text in verdicts %}<li><b>{{ title }}</b> {{ text }}</li>{% endfor %}</ul>
<p>{% if tests %}Significant: p &lt; {{ significant }} after Holm's correction for the number of
tests. {% endif %}Intervals are at {{ level }}. Each model was trained once;
<code>jemtrack graph --workflow seeds</code> measures how much trainings vary.</p>
{% endmacro %}

{% macro measures() %}
{{ table(figures, "Main metrics") }}
<p>{% if tests %}Bold: not significantly worse than the best. {% endif %}
Arrows point to the better end.</p>
{% call picture(pictures.intervals) %}Each metric with its interval at {{ level }}.{% endcall %}
{{ details("All metrics", metrics) }}
{% if tests %}{{ details("Tests between models", tests) }}{% endif %}
{% endmacro %}

{% macro trainings() %}
{{ table(training, "Model size and training costs") }}
{% if pictures.histories %}
{% call picture(pictures.histories, page.histories) %}Training curves, by epoch. The training losses
of different objectives cannot be compared.{% endcall %}
{% endif %}
{% if differing %}
{{ table(differing, "Parameters that differ between the models", words=True) }}
{% endif %}
{% endmacro %}

{% macro calibration() %}
{% call picture(pictures.reliability) %}Reliability diagrams. Points: accuracy and mean confidence
of the images in a bin, with the interval of the accuracy at 95%; dashed: perfect calibration; below
it a model is overconfident. Neighbouring bins with fewer than 10 images are drawn as one; the ECE
is that of all bins. Below: how many of the images have which confidence.{% endcall %}
{% endmacro %}

{% macro selective() %}
{% call picture(pictures.risk_coverage) %}Risk over coverage: the error rate of a model that
classifies only the images of which it is most confident.{% endcall %}
{% endmacro %}

{% macro confusion() %}
{% call picture(pictures.confusion) %}Number of images by label and predicted class; the stronger
the colour, the larger the share of the label.{% endcall %}
{% for model in models if page.examples.errors.get(model) %}
{% if loop.first %}<h3>Most confident errors</h3>{% endif %}
<figure class="errors"><p>{{ model }}</p><ul>{% for error in page.examples.errors[model] %}
<li><img class="pixels" alt="Image of class {{ error.label }}, classified as {{ error.predicted }}"
src="{{ error.png | png }}">{{ error.label }} → {{ error.predicted }}
<span class="interval">{{ "%.0f" | format(100 * error.confidence) }}%</span></li>{% endfor %}
</ul></figure>
{% if loop.last %}<p>Label → predicted class, and the confidence in it.</p>{% endif %}
{% endfor %}
{% endmacro %}

{% macro outliers() %}
<p>AUROC: the probability that a test image has a higher score than an outlier; .5 is guessing, 1 is
perfect. No score was fitted to outliers.
{% if tests %}Bold: by this score, on these outliers, not significantly worse than the best model.
{% endif %}</p>
{{ table(auroc, "AUROC") }}
{{ strips(page.examples.outliers, "Outliers") }}
{% call picture(pictures.roc, scores) %}ROC curves: true positive rate (test images) against false
positive rate (outliers).{% endcall %}
{{ details("All detection metrics", detection) }}
{% if outlier_tests %}{{ details("DeLong tests between models", outlier_tests) }}{% endif %}
{% endmacro %}

{% macro energies() %}
{% call picture(pictures.energies, image_sets) %}Distribution of the energies of test images,
training images and outliers. Outliers should lie apart, at higher energy. Energies of two models
cannot be compared.{% endcall %}
{% endmacro %}

{% macro strips(images, name) %}
{% if images %}<figure class="strips">{% for kind, png in images.items() %}
<p>{{ kind | kind }}</p>
<img class="pixels" alt="{{ name }}: {{ kind | kind }}" src="{{ png | png }}">{% endfor %}
</figure>{% endif %}
{% endmacro %}

{% macro robustness() %}
{{ table(accuracies, "Mean accuracy under corruptions and attacks") }}
<p>Means over severities, or radii, of the same images for all models.
{% if tests %}Bold: not significantly worse than the best.{% endif %}
 The images are in another order than above, so that each has other noise: the accuracy without
corruption may differ by an image or two.</p>
{% call picture(pictures.robustness, models) %}Accuracy over the severity of a corruption (1 to 5)
or the radius of an attack (pixels from 0 to 1), with its interval at 95%.{% endcall %}
{{ strips(page.examples.corruptions, "An image without corruption and at severities 1 to 5") }}
{% if robustness_tests %}
{{ details("Robustness tests between models", robustness_tests) }}
{% endif %}
{% endmacro %}

{% macro samples() %}
<p>The ends of Langevin chains that climb the density of each class, a row for each class. Trainers
that do not train on samples usually end in noise of which the classifier is sure: class agreement
alone says little. The feature distance is a kernel distance between samples and test images on the
features of this project's own classifier; it is neither FID nor KID, and only compares the models
of this page.</p>
{{ table(sample_metrics, "Sample quality") }}
<div class="grids">
{% if page.examples.real %}<figure><img class="pixels" alt="Test images, a row for each class"
src="{{ page.examples.real | png }}"><figcaption>test images</figcaption></figure>{% endif %}
{% for model, png in grids.items() %}
<figure><img class="pixels" alt="Samples of {{ model }}, a row for each class"
src="{{ png | png }}"><figcaption>{{ model }}</figcaption></figure>{% endfor %}
</div>
{% endmacro %}

{% macro data_card() %}
{{ table(data, "Data set", words=True) }}
{% if counts %}{{ details("Images by class and split", counts) }}{% endif %}
{% endmacro %}

{% macro provenance() %}
<p>Code: {{ page.code }}
{%- if page.changed_files %}, with changes in {{ page.changed_files | join(", ") }}{% endif %}.</p>
{% if page.environment %}{{ table(environment, "Versions and hardware", words=True) }}{% endif %}
<p>Model files by their MD5, as in <code>dvc.lock</code>; <code>git log -S MD5 --
dvc.lock</code> finds the commits that have a model.</p>
{{ table(md5, "Model files", words=True) }}
{% for stage, content in parameters.items() %}
{{ details("Parameters of " ~ stage, content, words=True) }}
{% endfor %}
{% endmacro %}

{% set sections = {
  "Summary": summary, "Metrics": measures, "Training": trainings if page.training,
  "Calibration": calibration, "Selective prediction": selective,
  "Confusion matrices": confusion, "OOD detection": outliers if auroc,
  "Energy distributions": energies, "Corruption robustness": robustness if accuracies,
  "Samples": samples if grids, "Data": data_card if page.data, "References": papers,
  "Provenance": provenance} -%}
"""

_FRAME = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ page.title }}</title>
<style>
:root { color-scheme: light dark; --text: #1a1a1a; --soft: #505050; --page: #fff; --line: #d9dee4;
        --best: #e3effa; --accent: #0b5394; --box: #f5f8fb; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --soft: #b0b0b0; --page: #16191d; --line: #3b4149; --best: #1d3a55;
          --accent: #7db8f0; --box: #1d2228; }
  figure svg, .legend i { filter: invert(1) hue-rotate(180deg); } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
       margin: 0 auto; padding: 1rem; max-width: 68rem; }
h1 { font-size: 1.7rem; margin: .5rem 0; } h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; padding-bottom: .15rem;
     border-bottom: 1px solid var(--line); }
p, li, dd { max-width: 46rem; } code { font-size: .9em; overflow-wrap: anywhere; }
a { color: var(--accent); }
.facts, figcaption, .interval, .download { color: var(--soft); }
.facts b { color: var(--text); overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
th:first-child, .words th, .words td { text-align: left; }
.words td { white-space: normal; overflow-wrap: anywhere; }
tbody th { font-weight: 400; position: sticky; left: 0; background: var(--page); }
thead th { border-bottom: 2px solid var(--soft); vertical-align: bottom; }
td.best { font-weight: 700; background: var(--best); }
.interval { font-size: .85em; font-weight: 400; }
.download { font-size: .8rem; margin: .2rem 0 .8rem; } .download a { margin-left: .4rem; }
figure { margin: .8rem 0; } figcaption { font-size: .9rem; max-width: 46rem; }
.legend { margin: .3rem 0; font-size: .85rem; }
.legend span { margin-right: 1rem; white-space: nowrap; }
.legend i { display: inline-block; width: 1.1em; height: .3em; margin: 0 .4em .2em 0; }
.panels, .grids { display: flex; flex-wrap: wrap; gap: .4rem; }
figure svg { max-width: 100%; height: auto; flex: none; }
img.pixels { image-rendering: pixelated; display: block; }
.grids figure { flex: 1 1 13rem; max-width: 20rem; } .grids img { width: 100%; }
.strips { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .3rem .8rem;
          align-items: center; } .strips p { margin: 0; font-size: .85rem; }
.strips img { height: 2.6rem; max-width: 100%; object-fit: contain; object-position: left; }
.errors p { margin: .4rem 0 .1rem; }
.errors ul { display: flex; flex-wrap: wrap; gap: .6rem; list-style: none; margin: 0; padding: 0;
             font-size: .85rem; } .errors img { width: 3.4rem; }
dt { font-weight: 600; font-size: .9rem; } dd { margin: 0 0 .5rem 1rem; font-size: .9rem; }
.first { border-left: 4px solid #0072b2; padding: .1rem 1rem; background: var(--box); }
.first h2 { margin-top: .6rem; border: 0; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
nav { margin-bottom: 1rem; } nav a { margin-right: .8rem; white-space: nowrap; }
@page { margin: 12mm; }
@media print { * { print-color-adjust: exact; }
  :root { --text: #000; --soft: #444; --page: #fff; --line: #ccc; --best: #e3effa; --box: #fff; }
  figure svg, .legend i { filter: none; }
  body { font-size: 9.5pt; max-width: none; padding: 0; } nav, .download { display: none; }
  .scroll { overflow: visible; } table { font-size: 6.5pt; } th, td { padding: 1pt 3pt; }
  tr, figure, svg { break-inside: avoid; } figure:has(.panels) { break-inside: auto; }
  h2, h3, summary, thead { break-after: avoid; }
  td { white-space: normal; } tbody th { position: static; }
  .panels { display: block; } .panels svg { max-width: 32%; }
  .panels svg:only-child { max-width: 50%; } .grids figure { flex-basis: 20%; max-width: 24%; }
  details::details-content { content-visibility: visible; height: auto; } }
@media (max-width: 40rem) { body { padding: .7rem; } h1 { font-size: 1.35rem; }
  th, td { padding: .25rem .35rem; } thead th { max-width: 5.4rem; }
  thead th, tbody th { white-space: normal; overflow-wrap: anywhere; } tbody th { max-width: 7rem; }
  td .interval { display: block; white-space: normal; max-width: 5rem; margin-left: auto; } }
</style>
</head>
<body>
<header>
<h1>{{ page.title }}</h1>
{{ facts() }}
<nav aria-label="Sections">{% for name, content in sections.items() if content -%}
<a href="#{{ name | anchor }}">{{ name }}</a>
{% endfor %}</nav>
</header>
<main>
{% for name, content in sections.items() if content %}
<section id="{{ name | anchor }}" aria-labelledby="{{ name | anchor }}-title"
{%- if loop.first %} class="first"{% endif %}>
<h2 id="{{ name | anchor }}-title">{{ name }}</h2>
{{ content() }}
</section>
{% endfor %}
</main>
</body>
</html>
"""
