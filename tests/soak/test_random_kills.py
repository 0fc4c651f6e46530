"""A training that is killed again and again, wherever it is."""

import itertools
import random

from killing import N_STEPS, train_longer
from project import Project
from test_resume import (
    ends_as_one_that_was_not,
    kill_all,
    kill_dvc,
    kill_training,
    press_ctrl_c,
    terminate_training,
)

N_KILLS = 20


def test_a_training_killed_at_random_ends_as_one_that_was_not(reproduced: Project):
    train_longer(reproduced)
    chosen = random.Random(1)
    kills = [*itertools.islice(itertools.cycle([kill_training, kill_dvc, kill_all]), N_KILLS)]
    ways = chosen.sample([*kills, press_ctrl_c, terminate_training], N_KILLS + 2)
    steps = sorted(chosen.sample(range(1, N_STEPS - 40), len(ways)))

    ends_as_one_that_was_not(reproduced, dict(zip(steps, ways, strict=True)))
