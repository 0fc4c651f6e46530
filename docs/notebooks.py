"""Run the notebooks, and write them with their outputs into docs/notebooks: `make notebooks`.

They run in a clone of the repository, with the results that DVC's cache has, so that this checkout
stays as it is.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "notebooks"
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TIME = re.compile(r"^\[\d\d:\d\d:\d\d\] ", re.M)
_STYLE = re.compile(r"<style scoped>.*?</style>\n", re.S)
# What git and DVC advise after each run.
_ADVICE = re.compile(
    r"^(To (track|enable|apply) .*|Use `dvc push`.*|\t(git|dvc) .*|Updating lock file.*)\n?", re.M
)


def main() -> None:
    """Run each notebook in a clone of its own."""
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder, "jemtrack")
            prepare(clone)
            write_page(notebook.stem, run(clone / "notebooks" / notebook.name), clone)


def prepare(clone: Path) -> None:
    """Clone the last commit with its results, and let processes import the clone's code."""

    def call(*command: str) -> None:
        subprocess.run(command, cwd=clone, check=True, stdout=subprocess.DEVNULL)

    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    # Not DVC's run cache, with which nothing would run.
    (clone / ".dvc" / "cache").mkdir()
    (clone / ".dvc" / "cache" / "files").symlink_to(ROOT / ".dvc" / "cache" / "files")
    call("dvc", "checkout", "--quiet")
    os.environ["PYTHONPATH"] = str(clone / "src")


def run(path: Path) -> NotebookNode:
    """Run a notebook where Jupyter runs it."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, kernel_name="python3", timeout=3600, resources=where).execute()
    return notebook


def write_page(name: str, notebook: NotebookNode, clone: Path) -> None:
    """Write the notebook as Markdown, and its pictures into a folder beside it."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = plain(output.text, clone)
    where = {"output_files_dir": f"{name}_files"}
    page, made = MarkdownExporter().from_notebook_node(notebook, resources=where)
    page = _STYLE.sub("", page).replace("![png](", "![Figure of the cell above](")
    page = page.replace('<table border="1" class="dataframe">', "<table>")
    page = re.sub(r"\n(\s*\n){3,}", "\n\n", page)  # Python has two blank lines at most
    shutil.rmtree(PAGES / f"{name}_files", ignore_errors=True)
    (PAGES / f"{name}_files").mkdir(parents=True)
    for file, content in made["outputs"].items():
        (PAGES / file).write_bytes(content)
    (PAGES / f"{name}.md").write_text(page.strip() + "\n", encoding="utf-8")
    print(PAGES / f"{name}.md")


def merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join what a cell printed, which arrives in pieces, standard output and error in turns."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def plain(text: str, clone: Path) -> str:
    """Leave out what only a terminal needs, and what differs from run to run."""
    text = _ADVICE.sub("", _TIME.sub("", _ANSI.sub("", text))).replace(f"{clone}/", "")
    return re.sub(r"\n(\s*\n)+", "\n", text).strip("\n") + "\n"


if __name__ == "__main__":
    main()
