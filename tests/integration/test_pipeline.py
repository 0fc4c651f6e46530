from project import Project


def test_a_second_repro_runs_nothing(reproduced: Project):
    assert reproduced.repro() == []
