"""Try parameters of the graph side by side, each trial an experiment of DVC: `jemtrack sweep`."""

from collections.abc import Sequence
from dataclasses import replace

from jemtrack.commands.run import coordinate, failure, pool, say
from jemtrack.project.params import read_parameters
from jemtrack.project.workers.coordinator import State, only_run
from jemtrack.project.workers.plan import restore_and_plan
from jemtrack.project.workers.sweep import Search, Sweep, read_space, seed_setting


def sweep(
    search: Search,
    settings: Sequence[str],
    n_seeds: int | None = None,
    workers: int | None = None,
    cluster: str | None = None,
) -> int:
    """Run the trials of `search`, whose space is that of the settings and seeds.

    Return the exit status: 1 unless all trials are done or pruned.

    Raises:
        InputError: if they cannot run; then none has.
        Interrupted: after Ctrl-C or SIGTERM, when the trials have ended.
    """
    known = read_parameters()
    settings = [*settings, *([seed_setting(n_seeds, known)] if n_seeds else [])]
    search = replace(search, space=read_space(settings, known))
    most = search.trials or len(search.combinations())
    plan = restore_and_plan(search.targets)
    with only_run(plan), pool(plan, workers, cluster, most, search.name) as (work, found):
        trials = Sweep(plan, work, found.executor_of, replace(search, width=found.width))
        print(f"{trials.n_left} trials to run on {found.name}", flush=True)
        runs = coordinate(trials)
    for failed in (run for run in runs if run.state is State.FAILED):
        say(failure(failed))
    print(trials.summary())
    return int(any(run.state not in {State.DONE, State.PRUNED} for run in runs))
