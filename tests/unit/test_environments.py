"""What a result depends on besides its inputs, and how that is told."""

from jemtrack.project.provenance import environment, environment_differences


def test_results_of_different_environments_are_told_apart():
    here = environment()
    assert {"jemtrack", "numpy", "torch", "python", "processor"} <= here.keys()
    assert environment_differences({"A": here, "B": here}) == []

    older = {**here, "torch": "2.0.0"}
    without = {name: here[name] for name in ("jemtrack", "python")}

    assert environment_differences({"A": here, "B": older, "C": here, "D": without}) == [
        f"made with another torch: {here['torch']} (A, C); 2.0.0 (B)"
    ]
