"""Write the page that `dvc plots show` fills, with Vega in it: DVC's own loads Vega from a CDN.

    python docs/offline_plots.py

`plots.html_template` in `.dvc/config` names the page. Vega, Vega-Lite and Vega-Embed are by the
University of Washington Interactive Data Lab and others, under the BSD 3-Clause licence;
vl-convert bundles them.
"""

from pathlib import Path

import vl_convert

PAGE = Path(__file__).parents[1] / ".dvc" / "offline_plots.html"
_GLOBALS = "window.vega = vega; window.vegaLite = vegaLite; window.vegaEmbed = vegaEmbed;"
_HTML = """<!DOCTYPE html>
<html>
<head>
{refresh_tag}
<meta charset="utf-8">
<title>DVC plots</title>
<style>body { font-family: sans-serif; } table { border-spacing: 15px; }</style>
<!-- Written by docs/offline_plots.py. Vega, Vega-Lite, Vega-Embed: BSD 3-Clause, (c) University of
Washington Interactive Data Lab and contributors. -->
<script>SCRIPT</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    """Bundle the scripts into the page; DVC replaces what is in braces."""
    script = vl_convert.javascript_bundle(_GLOBALS).replace("</script", r"<\/script")
    PAGE.write_text(_HTML.replace("SCRIPT", script), encoding="utf-8")


if __name__ == "__main__":
    main()
