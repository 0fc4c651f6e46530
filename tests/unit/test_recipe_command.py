"""`jemtrack validate` and `jemtrack components`, as they are typed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_files import FLUX_SHORT, FLUX_TWO_STEPS, TEN_FAULTS, WARM_UP

from jemtrack.commands.main import main

HEAVY = ("torch", "numpy", "pandas", "zntrack", "dvc")


@pytest.fixture
def files(root):
    Path("short.yaml").write_text(FLUX_SHORT)
    Path("long.yaml").write_text(FLUX_TWO_STEPS)
    Path("jem.yaml").write_text(WARM_UP)
    Path("bad.yaml").write_text("training:\n  pipeline:\n    - name: a\n      n_epochs: 0\n")
    Path("ten.yaml").write_text(TEN_FAULTS)
    return root


def run(script, *arguments):
    """Run a script in a process of its own; the code is that of the folder that one stands in."""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_sound_file_is_summed_up(files, capsys):
    assert main(["validate", "long.yaml"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "long.yaml: no problems",
        "Family: flux",
        "Total steps: 2",
        "Total epochs: 4 (at most 52)",
        "",
        "Step 1: vae_only (2 epochs)",
        "  Training: VAE",
        "  Frozen: flow_processor, text_encoder",
        "  Optimizers: vae: AdamW(lr=0.0001)",
        "  Batches: at most 2 an epoch",
        "  Ends: after 2 epochs",
        "",
        "Step 2: vae_gan (2 epochs)",
        "  Training: VAE, GAN",
        "  Frozen: flow_processor, text_encoder",
        "  Optimizers: vae: AdamW(lr=5e-05), discriminator: AdamW(lr=5e-05)",
        "  Schedulers: vae: CosineAnnealingLR(eta_min_factor=0.1), "
        "discriminator: StepLR(step_size=10, gamma=0.5)",
        "  Batches: at most 2 an epoch",
        "  Ends: when vae_loss < 0.05, or after 50 epochs",
        "",
        "Note: sizes that the file leaves open: vae_dim 4, text_embedding_dim 64, "
        "feature_maps_dim 48 (a U-Net) for latents of less than 64 pixels, else 128 (a "
        "transformer); images are halved once below 13 pixels, twice below 64, three times below "
        "256",
        "Note: training.workers has no effect: images are in memory",
    ]


def test_the_shortest_published_file_is_summed_up(files, capsys):
    assert main(["validate", "short.yaml"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == ["Family: flux", "Total steps: 2", "Total epochs: 30"]
    assert "  Training: VAE, GAN" in lines


def test_what_modes_mean_is_noted_where_their_names_tell_too_little(root, capsys):
    steps = "{name: a, n_epochs: 1, train_vae: true, use_lpips: true, train_diff: true}"
    sizes = "{vae_dim: 4, feature_maps_dim: 8, text_embedding_dim: 8}"
    text = f"model: {sizes}\ntraining: {{pipeline: {{steps: [{steps}]}}}}\n"
    Path("partial.yaml").write_text(text)
    Path("full.yaml").write_text(text.replace("train_diff", "train_diff_full"))

    main(["validate", "partial.yaml"])
    features, untrained = capsys.readouterr().out.splitlines()[-2:]
    main(["validate", "full.yaml"])

    assert features.startswith("Note: use_lpips: ")
    assert features.endswith(", not LPIPS")
    assert untrained.startswith("Note: text_encoder is never trained")
    assert capsys.readouterr().out.splitlines()[-1] == features


def test_the_sizes_that_a_file_gives_are_not_noted_as_left_open(root, capsys):
    steps = "[{name: a, n_epochs: 1, train_vae: true}]"
    text = f"model: {{family: flux, vae_dim: 8}}\ntraining: {{pipeline: {{steps: {steps}}}}}\n"
    Path("wide.yaml").write_text(text)

    main(["validate", "wide.yaml"])

    note = capsys.readouterr().out.splitlines()[-1]
    assert note.startswith("Note: sizes that the file leaves open: text_embedding_dim 64, feature")


def test_problems_are_printed_with_file_and_line_and_counted(files, capsys):
    assert main(["validate", "bad.yaml", "jem.yaml", "none.yaml"]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "bad.yaml:2: training.pipeline: holds a list where `steps:` is missing: "
        "put `steps:` above the list, and indent it",
        "bad.yaml:3: training.pipeline[0].objective: is missing; there are cross_entropy, "
        "max_entropy_l1, max_entropy_l2, sampled_jem",
        "bad.yaml:4: training.pipeline[0].n_epochs: must be >= 1, got 0",
    ]
    assert "jem.yaml: no problems" in lines
    assert lines[-2:] == [
        "none.yaml: cannot be read: No such file or directory",
        "4 problems found",
    ]


def test_ten_faults_are_printed_in_the_order_of_lines_and_the_command_fails(files):
    script = "import sys; from jemtrack.commands.main import main; sys.exit(main(sys.argv[1:]))"
    assert run(script, "validate", "jem.yaml").returncode == 0

    done = run(script, "validate", "ten.yaml")

    *problems, count = done.stdout.splitlines()
    lines = [int(problem.split(":")[1]) for problem in problems]
    assert (done.returncode, count, len(problems)) == (1, "10 problems found", 10)
    assert lines == sorted(lines) == [2, 3, 6, 11, 14, 16, 16, 19, 21, 24]


def test_checking_imports_nothing_heavy(files):
    """Nor is any of it needed; so the command answers in a fraction of a second."""
    script = (
        "import sys; from jemtrack.commands.main import main; status = main(sys.argv[1:]); "
        f"sys.exit(' '.join(name for name in {HEAVY} if name in sys.modules) or status)"
    )

    done = run(script, "validate", "short.yaml", "long.yaml", "jem.yaml")

    assert (done.returncode, done.stderr) == (0, "")


def test_the_components_are_listed_with_their_options(capsys):
    assert main(["components"]) == 0

    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("lines (tracker): "))
    assert lines[start + 1] == (
        "    print_every: int, default 100, >= 1: batches between two lines"
    )
    assert any(line.startswith("history (tracker): ") for line in lines)
    assert any(line.startswith("    every: int, required, >= 1: epochs between") for line in lines)
    for name in ("sampled_jem (objective)", "AdamW (optimizer)", "StepLR (scheduler)"):
        assert any(line.startswith(f"{name}: ") for line in lines)
    assert "    step_size: default 1.0: of a chain, times the gradient of the log density" in lines


def test_components_are_chosen_by_a_word_and_wrapped_between_words(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")

    assert main(["components", "Ema"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ema (callback): Averages the weights of each"
    assert lines[1] == "    model; the averages are validated and saved"
    assert [line.split()[0] for line in lines if re.match(r" {4}\w+: ", line)] == [
        *("adopt:", "decay:", "update_every:", "warm_up:"),
    ]
    assert max(map(len, lines)) <= 50
    assert main(["components", "fog"]) == 1
    assert "no component has 'fog' in its name or kind; there are" in capsys.readouterr().err


def test_each_command_has_a_description_and_examples(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = "data graph check show compare exps notebook validate train components scratch replay"
    names += " sample"
    for command in [*([name] for name in [*names.split(), "bench"]), ["scratch", "prune"]]:
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        text = capsys.readouterr().out
        assert f"jemtrack {' '.join(command)}" in text.partition("\nexamples:\n")[2]
        assert max(map(len, text.splitlines())) <= 80


def test_the_modules_of_callbacks_and_trackers_import_nothing_heavy(root):
    script = (
        "import sys; from jemtrack.shared.components import *; "
        "load_components(CALLBACK), load_components(TRACKER); "
        f"sys.exit(' '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    )
    done = run(script)

    assert (done.returncode, done.stderr) == (0, "")
