"""A class of the kind that a hostile file names: whoever calls it is told of in `CALLS`."""

CALLS: list[str] = []


class Canary:
    def __init__(self, *arguments: object, **options: object) -> None:
        CALLS.append("made")

    def __call__(self, *arguments: object) -> None:
        CALLS.append("called")


def canary(*arguments: object, **options: object) -> None:
    CALLS.append("run")
