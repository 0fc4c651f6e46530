"""`jemtrack completion`: a shell completes commands and their options."""

import subprocess

import pytest

from jemtrack.commands.main import main


@pytest.mark.parametrize(
    ("typed", "offered"), [(["sho"], ["show"]), (["show", "--"], ["--help --all --json --md"])]
)
def test_bash_completes_commands_and_options(typed, offered, tmp_path, capsys):
    main(["completion", "bash"])
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    words = " ".join(["jemtrack", *typed])
    asked = (
        f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; "
        '$(complete -p jemtrack | sed "s/.*-F //; s/ .*//"); echo "${COMPREPLY[*]}"'
    )

    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == offered
