import pytest

from jemtrack.shared.progress import track


def test_without_a_terminal_one_line_says_what_is_done(capsys):
    assert [*track(iter("abc"), "Sampling")] == ["a", "b", "c"]

    assert capsys.readouterr() == ("", "Sampling\n")


@pytest.mark.parametrize("total", [3, None])
def test_a_terminal_shows_a_bar(capsys, monkeypatch, total):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")

    assert [*track(iter("abc") if total else "abc", "Sampling", total)] == ["a", "b", "c"]

    shown = capsys.readouterr().err
    assert "Sampling" in shown
    assert "100%" in shown
