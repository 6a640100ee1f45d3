"""The project's own rules that no linter knows: honest tests, small files, plain names, a light import, no pickle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("gridray", "tests", "examples", "benchmarks") for path in (REPOSITORY / folder).rglob("*.py")
)
BANNED_MODULES = {"utils", "util", "helpers", "helper", "misc", "common"}
BANNED_SUFFIXES = ("Manager", "Handler", "Helper", "Engine", "Processor", "Wrapper")
BANNED_CALLS = {"eval", "exec", "pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "torch.load"}
MAX_FILE_LINES = 400
MAX_START_S = 0.5


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def shows_something(function: ast.AST) -> bool:
    """Tell whether a test asserts, expects an error or warning, or uses a checking function (`check*`, `assert_*`)."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in {"raises", "warns"} or name.startswith(("assert_", "check")):
                return True
    return False


def banned_calls(tree: ast.Module) -> list[str]:
    calls = (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call for call in calls if call in BANNED_CALLS]


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name.startswith("test_")], ids=name_of)
def test_every_test_asserts_something(path: Path) -> None:
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    silent = [f.name for f in functions if f.name.startswith("test_") and not shows_something(f)]
    assert not silent, f"{name_of(path)}: tests that assert nothing: {silent}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_is_small_and_plainly_named(path: Path) -> None:
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_FILE_LINES, f"{name_of(path)} has {num_lines} lines: split it by idea"
    assert path.stem not in BANNED_MODULES, f"{name_of(path)}: name the module after its one idea"
    classes = [node.name for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef)]
    vague = [name for name in classes if name.endswith(BANNED_SUFFIXES)]
    assert not vague, f"{name_of(path)}: name these classes after what they are: {vague}"


@pytest.mark.parametrize("path", [path for path in SOURCES if "tests" not in path.parts], ids=name_of)
def test_no_code_is_loaded_from_data(path: Path) -> None:
    found = banned_calls(parse(path))
    assert not found, f"{name_of(path)} calls {found}: data must never run as code"


def test_banned_calls_are_found_where_they_are() -> None:
    tree = ast.parse("import torch\nweights = torch.load('w.pt')\nmodel.eval()\nvalue = eval('1')\n")
    assert banned_calls(tree) == ["torch.load", "eval"]


def test_readme_shows_the_example_that_runs() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    example = (REPOSITORY / "examples" / "query_policy.py").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert blocks == [example], "README.md must have examples/query_policy.py as its only Python block, word for word"


def best_seconds(*command: str) -> float:
    """Run a command three times and return the least wall time, s."""
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, timeout=30)  # noqa: S603  # fixed commands below
        durations.append(time.perf_counter() - start)
    return min(durations)


def test_import_is_light() -> None:
    code = "import gridray, sys; assert not {'ray', 'torch', 'numba', 'matplotlib'} & set(sys.modules)"
    assert best_seconds(sys.executable, "-c", code) < MAX_START_S


def test_help_answers_at_once_and_imports_no_command() -> None:
    code = (
        "import sys, gridray.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as left: assert left.code == 0, left.code\n"
        "assert not {module for module, _ in cli.COMMANDS.values()} & set(sys.modules)\n"
        "assert not {'ray', 'torch', 'numpy', 'rich'} & set(sys.modules)\n"
    )
    assert best_seconds(sys.executable, "-c", code) < MAX_START_S
    assert best_seconds(str(Path(sys.executable).with_name("gridray")), "--help") < MAX_START_S
