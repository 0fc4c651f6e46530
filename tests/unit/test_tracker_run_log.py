import contextlib
import io
import logging

from jemtrack.trackers.console import run_log


def test_the_log_goes_to_the_file_and_to_the_screen(tmp_path, capsys):
    path = tmp_path / "new" / "train.log"

    with run_log(path, on_screen=True):
        logging.getLogger("jemtrack").info("a line")
    logging.getLogger("jemtrack").info("after the run")

    assert path.read_text().endswith("] a line\n")
    assert capsys.readouterr().err == path.read_text()


def test_warnings_alone_reach_a_screen_that_shows_a_bar(tmp_path, capsys):
    path = tmp_path / "train.log"

    with run_log(path, on_screen=False):
        logging.getLogger("jemtrack").info("a line")
        logging.getLogger("jemtrack").warning("a warning")

    assert capsys.readouterr().err.endswith("] a warning\n")
    assert path.read_text().endswith(" a warning\n")
    assert "] a line\n" in path.read_text()


def test_a_warning_goes_to_what_replaces_standard_error_meanwhile(capsys):
    with run_log(None, on_screen=False), contextlib.redirect_stderr(io.StringIO()) as bar:
        logging.getLogger("jemtrack").warning("a warning")

    assert bar.getvalue().endswith("] a warning\n")
    assert capsys.readouterr().err == ""
