"""The server's page in a real browser: an image is dropped on it."""

import base64
import io
import re
import subprocess
import threading
import time
from html import unescape

import numpy as np
import pytest
import uvicorn
from deployed import Here, some_data
from fastapi.responses import HTMLResponse
from PIL import Image

from jemtrack.deploy.predict import Model
from jemtrack.deploy.server import make_app, page

pytestmark = pytest.mark.browser

DROP = """
<script>
onload = () => {
  const bytes = Uint8Array.from(atob("CONTENT"), each => each.charCodeAt(0));
  const dropped = new DataTransfer();
  dropped.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: dropped }));
};
</script>
"""


def seen(model: Model, image: np.ndarray) -> dict[str, str]:
    """Drop an image on the page in Chromium; give the texts of its elements by id."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    app = make_app(model.description, [Here(model)])

    @app.get("/dropped")
    async def dropped() -> HTMLResponse:
        script = DROP.replace("CONTENT", base64.b64encode(stream.getvalue()).decode())
        return HTMLResponse((await page()).body.decode().replace("</html>", f"{script}</html>"))

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += ["--virtual-time-budget=5000", f"http://127.0.0.1:{port}/dropped"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    finally:
        server.should_exit = True
        thread.join()
    elements = re.findall(r'<(p|h1|table) id="(\w+)"[^>]*>(.*?)</\1>', ended.stdout, re.DOTALL)
    return {name: unescape(re.sub(r"<[^>]+>", " ", text)).strip() for _, name, text in elements}


@pytest.mark.parametrize("threshold", [-1e9, 1e9])
def test_a_dropped_image_shows_classes_score_and_verdict(deployed_once, threshold):
    model = Model(deployed_once / "bundle", threshold=threshold)
    image = some_data().test.images_NCHW[:1].numpy()
    answers = model(image)

    texts = seen(model, image[0, 0])
    best = int(answers["probabilities"][0].argmax())
    verdict = "I have not seen this" if threshold > 0 else f"Class {best}"
    assert texts["verdict"] == verdict
    assert texts["name"] == "Trained"
    assert "images of 8 x 8 pixels, grey" in texts["about"]
    assert f"log p~(x) {answers['log_density'][0]:.3f}," in texts["score"]
    shown = texts["classes"].split()
    assert shown[:3] == [str(best), f"{100 * answers['probabilities'][0, best]:.1f}", "%"]


def test_an_image_of_another_size_is_refused_on_the_page(deployed_once):
    texts = seen(Model(deployed_once / "bundle"), np.zeros((9, 8), np.uint8))

    expected = "Refused: a PNG must be 8 x 8 pixels of mode L, got 8 x 9 of mode L"
    assert texts["verdict"] == expected
    assert texts["classes"] == ""
