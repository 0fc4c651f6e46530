"""What each parameter means, from the docstring of its class: the comments in params.yaml."""

import inspect
import re
import textwrap
from typing import Any

from ruamel.yaml.comments import CommentedMap

_SECTION = re.compile(r"^Attributes:\n((?: {4}.*(?:\n|$)|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): ((?:.|\n {8})*)", re.MULTILINE)
_SENTENCE_END, _CLAUSE_END = re.compile(r"\.(?: |$)"), re.compile(r"[;:] ")
_LONGEST = 90  # letters; of a longer sentence the first clause is shown


def field_docs(cls: type) -> dict[str, str]:
    """Read what the `Attributes:` of a class and of its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = _SECTION.search(inspect.cleandoc(base.__doc__ or ""))
        for names, text in _ENTRY.findall(section[1]) if section else ():
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def field_comments(cls: type) -> dict[str, str]:
    """Shorten `field_docs` to a line each."""
    return {name: _in_a_line(text) for name, text in field_docs(cls).items()}


def _in_a_line(text: str) -> str:
    sentence = _SENTENCE_END.split(text, maxsplit=1)[0]
    if len(sentence) > _LONGEST:
        sentence = _CLAUSE_END.split(sentence, maxsplit=1)[0]
    return textwrap.shorten(sentence, _LONGEST, placeholder=" ...")


def add_comments(section: Any, cls: type) -> bool:
    """Comment the parameters of an object of `cls`; one that has a comment keeps it.

    Returns whether a comment was added.
    """
    if not isinstance(section, CommentedMap):
        return False
    texts = field_comments(cls)
    added = [name for name in section if texts.get(name) and name not in section.ca.items]
    for name in added:
        section.yaml_add_eol_comment(texts[name], name, column=0)
    return bool(added)
