"""The names of the classes of the known data sets, with their articles."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS = tuple(f"the digit {name}" for name in _NUMBERS)
_CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "digits": _DIGITS,
    "mnist5k": _DIGITS,
    "mnist": _DIGITS,
    "fashion-mnist": (
        *("a t-shirt", "a pair of trousers", "a pullover", "a dress", "a coat"),
        *("a sandal", "a shirt", "a sneaker", "a bag", "an ankle boot"),
    ),
    "cifar10": (
        *("an airplane", "a car", "a bird", "a cat", "a deer"),
        *("a dog", "a frog", "a horse", "a ship", "a truck"),
    ),
}


def class_names(dataset: str, n_classes: int) -> tuple[str, ...]:
    """Return the names of a data set's classes; `class 0` and so on where they are not known."""
    return _CLASS_NAMES.get(dataset) or tuple(f"class {number}" for number in range(n_classes))
