"""From the steps of a recipe to the phases of a run."""

from collections.abc import Callable, Sequence

from jemtrack.engine.family import Family
from jemtrack.engine.optimization import optimizer_factory, schedule
from jemtrack.engine.phase import Batches, Objective, Phase, Threshold, Validation
from jemtrack.engine.recipe import Recipe, Step, Transition


def phases(
    recipe: Recipe,
    family: Family,
    objectives: Sequence[Objective],
    batches: Callable[[int, Step], Batches],
    validation: Validation | None,
) -> list[Phase]:
    """Make a phase of each step, with its objective; `batches` gives those of a step by its number.

    A loss above the `max_loss` of the recipe's divergence counts as diverged in every phase.
    """
    return [
        Phase(
            name=step.name,
            objective=objective,
            batches=batches(number, step),
            n_epochs=step.most_epochs,
            optimizers={name: optimizer_factory(each) for name, each in step.optimizers.items()},
            trained=family.optimizers,
            schedules={
                name: schedule(each, step.most_epochs) for name, each in step.schedulers.items()
            },
            clip_norms={
                name: each.clip_norm for name, each in step.optimizers.items() if each.clip_norm
            },
            warm_up_steps={name: each.warm_up_steps for name, each in step.optimizers.items()},
            frozen=step.frozen,
            validation=validation,
            threshold=_threshold(step.transition),
            max_steps=step.max_steps,
            max_loss=recipe.divergence.max_loss,
        )
        for number, (step, objective) in enumerate(zip(recipe.steps, objectives, strict=True))
    ]


def _threshold(transition: Transition) -> Threshold | None:
    if transition.mode == "epoch":
        return None
    # A recipe that was checked has both.
    assert transition.metric is not None
    assert transition.threshold is not None
    return Threshold(transition.metric, transition.threshold, transition.window)
