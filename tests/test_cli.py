"""The command line: its table, exit codes and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from inspect import getdoc, signature
from pathlib import Path

import numpy as np
import pytest

from gridray import __version__
from gridray.cli import COMMANDS, main
from gridray.cli.output import print_json, print_table, progress
from gridray.errors import DatasetError

INTERRUPTED_COMMAND = """
import sys, types
module = types.ModuleType("interrupted")
def command() -> None:
    raise KeyboardInterrupt
module.command = command
sys.modules["interrupted"] = module
import gridray.cli as cli
cli.COMMANDS["interrupted"] = ("interrupted", "Stop at once.")
cli.main(["interrupted"])
"""


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"gridray {__version__}\n"


def test_module_runs_like_the_command() -> None:
    run = subprocess.run([sys.executable, "-m", "gridray", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"gridray {__version__}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    text = capsys.readouterr().out
    assert all(f"{name} " in text and help_line in text for name, (_, help_line) in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_command_shows_its_own_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(name, "--help") == 0
    assert f"Usage: gridray {name}" in capsys.readouterr().out
    module = import_module(COMMANDS[name][0])
    for command in getattr(module, "COMMANDS", {}).values() or [module.command]:
        assert f"gridray {name}" in (getdoc(command) or ""), "the docstring must show an example"
        assert "--json" in str(signature(command)), "every command offers --json"


@pytest.mark.parametrize("arguments", [("powrflow",), ("--no-such-option",), ("powerflow", "--no-such-option"), ()])
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert exit_code(*arguments) == 2


def test_mistyped_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("powrflow") == 2
    assert "Did you mean 'powerflow'" in capsys.readouterr().err


def test_own_error_is_one_message_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("powerflow", "no_such_feeder") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "no_such_feeder" in captured.err
    assert "Traceback" not in captured.err


def test_path_that_cannot_be_written_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as left:
        main(["record", "--no-ray", "--policy", "hold", "--episodes", "1", "--out", str(tmp_path / "file" / "x")])
    assert left.value.code == 1
    assert f"error: '{tmp_path / 'file' / '.partial-x'}': Not a directory" in capsys.readouterr().err


def test_interrupted_command_exits_with_130() -> None:
    run = subprocess.run([sys.executable, "-c", INTERRUPTED_COMMAND], check=False, capture_output=True, text=True)  # noqa: S603
    assert run.returncode == 130
    assert "Traceback" not in run.stderr


def test_json_has_plain_values_only(capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "array": np.arange(2.0),
        "number": np.float32(0.5),
        "nan": float("nan"),
        "path": Path("a/b"),
        "done": True,
    }
    print_json(values)
    expected = {"array": [0.0, 1.0], "number": 0.5, "nan": None, "path": "a/b", "done": True}
    assert json.loads(capsys.readouterr().out) == expected


def test_table_aligns_numbers_right_and_words_left(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Losses", ["feeder", "kw"], [["ieee13", 1.5], ["ieee123", 120.25]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Losses", "feeder       kw", "-------  ------", "ieee13      1.5", "ieee123  120.25", ""]


def test_table_without_rows_has_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("", ["feeder", "kw"], [])
    assert capsys.readouterr().out.splitlines()[0] == "feeder  kw"


def test_progress_is_silent_off_terminal_and_lets_errors_through(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with progress("Recording", 10) as advance:
            advance(1)
            raise DatasetError("shard is gone")

    with pytest.raises(DatasetError, match="shard is gone"):
        fail()
    assert capsys.readouterr() == ("", "")
