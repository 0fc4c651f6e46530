"""What the README and its neighbours name is there; its commands are typed in by `make soak`."""

import re

from project import ROOT

README = (ROOT / "README.md").read_text()


def test_the_files_that_the_readme_names_are_there():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path


def test_the_targets_that_the_pages_name_are_there():
    rules = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.M)
    targets = {target for rule in rules for target in rule.split()}
    pages = README + (ROOT / "CONTRIBUTING.md").read_text()

    assert set(re.findall(r"(?:`|^)make ([\w-]+)", pages, re.M)) <= targets
