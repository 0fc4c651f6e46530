"""The evaluation's page in a real browser: on a phone, on a screen and in print."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from project import Project

pytestmark = pytest.mark.browser

# Written into a copy of the page; what it found stands in the page's text then.
LOOK = """
<pre id="looked"></pre><script>
const wide = window.innerWidth, over = [];
for (const each of document.querySelectorAll("main *, header *")) {
  if (each.closest(".scroll, svg") || !each.getClientRects().length) continue;
  if (each.getBoundingClientRect().right > wide + 1) over.push(each.tagName);
}
document.getElementById("looked").textContent = JSON.stringify({
  width: wide, page: document.documentElement.scrollWidth, over: over,
  empty: [...document.images].filter(i => !i.complete || !i.naturalWidth).length,
  pictures: [...document.querySelectorAll("figure svg")].map(s => s.getBoundingClientRect().width),
  words: [...document.querySelectorAll("figure svg text")].length,
  broken: [...document.querySelectorAll("nav a")].filter(
    a => !document.getElementById(a.hash.slice(1))).length,
});
</script>
"""


def browser(*arguments: str) -> str:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    # A page that needs the network would show it.
    command += ["--proxy-server=127.0.0.1:9", "--virtual-time-budget=5000", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


@pytest.fixture
def page(whole_reproduced: Project, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    shutil.copy(whole_reproduced.path / "nodes" / "EvaluateX" / "report.html", path)
    return path


@pytest.mark.parametrize("width", [500, 800, 1400])
def test_it_fits_the_screen(page: Path, width: int):
    looked = page.with_name("looked.html")
    looked.write_text(page.read_text().replace("</main>", f"</main>{LOOK}"))

    dom = browser(f"--window-size={width},900", "--dump-dom", f"file://{looked}")

    found = json.loads(unescape(re.search(r'<pre id="looked">(.*?)</pre>', dom, re.S)[1]))
    assert found["width"] == width
    assert found["page"] <= width
    assert found["over"] == []
    assert found["empty"] == found["broken"] == 0
    assert min(found["pictures"]) > 100
    assert found["words"] > 100


def test_it_can_be_printed(page: Path, tmp_path: Path):
    browser(f"--print-to-pdf={tmp_path / 'report.pdf'}", f"file://{page}")

    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 3 <= pages <= 30
