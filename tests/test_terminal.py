"""What the commands write while they ask an endpoint."""

import os
import subprocess
import sys

import pytest

from rrtf.cli import screen


@pytest.mark.parametrize(
    "numbers, text",
    [
        ((0, 0, 0.0), "0 tokens"),
        ((12_300, 95_000, 450.4), "12,300 tokens, about 95,000 and 0:07:30 to come"),
        ((9, 0, 0.0), "9 tokens"),
        ((1_000, 2_000, 100_000), "1,000 tokens, about 2,000 and 1 day, 3:46:40 to come"),
    ],
)  # fmt: skip
def test_spending_is_told_in_tokens_and_time(numbers, text):
    assert screen.spent(*numbers) == text


@pytest.mark.parametrize("command", ["rows = screen.write('-', [{'text': 'é'}])", "print('é')"])
def test_what_a_terminal_cannot_encode_is_replaced_and_rows_stay_as_they_are(command):
    program = f"from rrtf.cli import screen\nwith screen.exit_codes():\n    {command}\n"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    shown = b"?\n" if "print" in command else '{"text": "é"}\n'.encode()
    assert (done.returncode, done.stdout) == (0, shown), done.stderr


def test_without_a_terminal_there_is_no_bar(capsys):
    with screen.spending("asking") as tell:
        assert tell is None
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_the_bar_takes_what_the_endpoint_tells(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with screen.spending("asking") as tell:
        tell(3, 10, 45, 105, 7.0)
        tell(10, 10, 150, 0, 0.0)
    written = capsys.readouterr().err
    assert "asking" in written and "10/10" in written and "150 tokens" in written


def test_a_narrow_terminal_keeps_names_and_numbers_and_breaks_sentences(capsys):
    from rich.console import Console

    rows = [{"variant": "ctranslate2-float32", "MB": 1.0, "status": "failed: " + "because " * 20}]
    Console(width=60).print(screen.rows_table(rows))
    written = capsys.readouterr().out
    assert "ctranslate2-float32  1.00  failed: because" in written
    assert written.count("because") == 20 and "…" not in written
