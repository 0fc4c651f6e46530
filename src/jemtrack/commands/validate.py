"""A recipe file in a few lines, for one to see whether it says what was meant."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jemtrack.recipe.read import RecipeFile, read_recipe, recipe_problems
from jemtrack.train.recipe import Family, Step, Transition


def validated(paths: Iterable[Path]) -> tuple[list[str], int]:
    """Check recipe files; give the lines to show, and how many problems there are."""
    lines: list[str] = []
    count = 0
    for path in paths:
        problems = recipe_problems(path)
        count += len(problems)
        if problems:
            lines += [problem.of(path) for problem in problems]
        else:
            lines += [f"{path}: no problems", *summary(read_recipe(path))]
    return [*lines, *([f"{_plural(count, 'problem')} found"] if count else [])], count


def summary(file: RecipeFile) -> Iterator[str]:
    """Give the lines: the whole, then each step."""
    recipe, family = file.recipe, file.family
    most = sum(step.most_epochs for step in recipe.steps)
    at_most = f" (at most {most})" if most != recipe.n_epochs else ""
    yield f"Family: {family.name}"
    yield f"Total steps: {len(recipe.steps)}"
    yield f"Total epochs: {recipe.n_epochs}{at_most}"
    for number, step in enumerate(recipe.steps, start=1):
        yield ""
        yield f"Step {number}: {step.name} ({_plural(step.n_epochs, 'epoch')})"
        yield from (f"  {name}: {text}" for name, text in _step_lines(step, family) if text)
    notes = [family.note]
    if getattr(file.training, "workers", None) is not None:
        notes.append("training.workers has no effect: images are in memory")
    if any(notes):
        yield ""
    yield from (f"Note: {note}" for note in notes if note)


def _step_lines(step: Step, family: Family) -> Iterator[tuple[str, str]]:
    yield "Training", _training(step, family)
    yield "Frozen", ", ".join(step.frozen) or "nothing"
    yield "Optimizers", ", ".join(_described(step.optimizers))
    yield "Schedulers", ", ".join(_described(step.schedulers))
    yield "Batches", f"at most {step.max_steps} an epoch" if step.max_steps else ""
    yield "Ends", _end(step.transition, step.most_epochs)


def _training(step: Step, family: Family) -> str:
    if family.modes:
        return family.modes.shown(family.modes.options(**step.modes))
    options = {name: value for name, value in step.objective.items() if name != "type"}
    return _with_options(step.objective["type"], options)


def _described(choices: Mapping[str, Any]) -> Iterator[str]:
    for name, choice in choices.items():
        changed = {
            entry.name: value
            for entry in dataclasses.fields(choice)
            if (value := getattr(choice, entry.name)) != entry.default
        }
        yield f"{name}: {_with_options(type(choice).__name__, changed)}"


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    listed = ", ".join(f"{option}={value}" for option, value in options.items())
    return f"{name}({listed})" if listed else name


def _end(transition: Transition, most_epochs: int) -> str:
    epochs = f"after {_plural(most_epochs, 'epoch')}"
    if transition.mode == "epoch":
        return epochs
    return f"when {transition.metric} < {transition.threshold:g}, or {epochs}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)
