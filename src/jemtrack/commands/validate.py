"""Recipe files: checked, and summed up for the reader to see whether they say what was meant."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jemtrack.recipe.check import checked_recipe
from jemtrack.recipe.read import RecipeFile
from jemtrack.train.recipe import Step, format_choice


def validated(paths: Iterable[Path]) -> tuple[list[str], int]:
    """Check recipe files; return the lines to show, and how many problems there are."""
    lines: list[str] = []
    count = 0
    for path in paths:
        file, problems = checked_recipe(path)
        count += len(problems)
        lines += [problem.of(path) for problem in problems]
        lines += [f"{path}: no problems", *summary(file)] if file else []
    return [*lines, *([f"{_plural(count, 'problem')} found"] if count else [])], count


def summary(file: RecipeFile) -> Iterator[str]:
    """Yield the lines: the whole, then each step."""
    recipe = file.recipe
    most = sum(step.most_epochs for step in recipe.steps)
    at_most = f" (at most {most})" if most != recipe.n_epochs else ""
    yield f"Family: {file.family.name}"
    yield f"Total steps: {len(recipe.steps)}"
    yield f"Total epochs: {recipe.n_epochs}{at_most}"
    for number, step in enumerate(recipe.steps, start=1):
        yield ""
        yield f"Step {number}: {step.name} ({_plural(step.n_epochs, 'epoch')})"
        yield from (f"  {name}: {text}" for name, text in _step_lines(step) if text)
    unused = "training.workers has no effect: images are in memory"
    notes = [*filter(None, [file.family.note]), *file.family.notes(recipe, file.model)]
    notes += [unused] if file.training.workers is not None else []
    yield from [""] if notes else []
    yield from (f"Note: {note}" for note in notes)


def _step_lines(step: Step) -> Iterator[tuple[str, str]]:
    yield "Training", step.summary
    yield "Frozen", ", ".join(step.frozen) or "nothing"
    yield "Optimizers", _choices(step.optimizers)
    yield "Schedulers", _choices(step.schedulers)
    yield "Batches", f"at most {step.max_steps} an epoch" if step.max_steps else ""
    yield "Ends", _end(step)


def _choices(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {format_choice(each)}" for name, each in chosen.items())


def _end(step: Step) -> str:
    how, epochs = step.transition, f"after {_plural(step.most_epochs, 'epoch')}"
    if how.mode == "loss_threshold":
        return f"when {how.metric} < {how.threshold:g}, or {epochs}"
    return f"after {how.hours:g} hours, or {epochs}" if how.mode == "wall_clock" else epochs


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)
