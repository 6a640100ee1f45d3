"""The `gridray` command: a table of subcommands, each imported only when it is called."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from gridray import __version__
from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: Final = {
    "powerflow": ("gridray.cli.powerflow", "Solve a feeder and print voltages, losses and taps."),
    "record": ("gridray.cli.record", "Record an offline dataset by driving a policy."),
    "dataset": ("gridray.cli.dataset", "Import, inspect and exchange offline datasets."),
    "calibrate": ("gridray.cli.calibrate", "Fit a feeder model to imported measurements."),
    "train": ("gridray.cli.train", "Train a policy on one dataset."),
    "federate": ("gridray.cli.federate", "Train one policy over several utilities' datasets."),
    "ledger": ("gridray.cli.ledger", "Show or check what a federation did."),
    "evaluate": ("gridray.cli.evaluate", "Compare policies on held-out days."),
    "compat": ("gridray.cli.compat", "Compare other projects' benchmarks with ours."),
    "tune": ("gridray.cli.tune", "Search learner settings with Ray Tune."),
    "adapt": ("gridray.cli.adapt", "Write a policy for any feeder as the bundle of one."),
    "serve": ("gridray.cli.serve", "Serve a trained policy over HTTP."),
    "demo": ("gridray.cli.demo", "Run the whole way for three utilities and report."),
}

USERS_ERRORS: Final = {
    getattr(errno, name) for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOTDIR", "EISDIR", "EEXIST")
}
"""What a path of the user's, not a mistake of ours, can be wrong with."""

_OPTIONS: Final[dict[str, Any]] = {
    # Plain help and tracebacks: Rich would cost more than all the rest of `gridray --help`.
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class LazyGroup(TyperGroup):
    """Group that lists its commands from the table and imports only the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401
        """Import the command named first in `args`; a wrong name is a usage error that suggests the nearest."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            module = import_module(COMMANDS[name][0])
            app = typer.Typer(**_OPTIONS)
            if hasattr(module, "COMMANDS"):
                app.callback()(module.group)
                for own_name, own in module.COMMANDS.items():
                    app.command(own_name)(own)
            else:
                app.command(name)(module.command)
            command = get_command(app)
        return name, command, rest


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with exit code 0, 1 (failed), 2 (wrong usage) or 130 (interrupted).

    Args:
        arguments: Words after `gridray`; those of the process where None.
    """
    # One thread per process: the parallelism is Ray's, and oversubscribed BLAS pools are several times slower.
    for library in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    app = typer.Typer(cls=LazyGroup, no_args_is_help=True, **_OPTIONS)
    app.callback()(_gridray)
    for name, (_, help_line) in COMMANDS.items():
        app.command(name, help=help_line)(_listed)
    try:
        get_command(app).main(args=arguments, prog_name="gridray")
    except GridRayError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except OSError as error:
        if error.errno not in USERS_ERRORS:
            raise
        sys.stderr.write(f"error: '{error.filename}': {error.strerror}: give another path, or make room there.\n")
        sys.exit(1)


def _gridray(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=lambda value: _print_version(is_asked=value))
    ] = False,
) -> None:
    """Federated offline reinforcement learning for unbalanced distribution grids, on Ray."""


def _print_version(*, is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"gridray {__version__}\n")
        raise typer.Exit


def _listed() -> None:
    """Stand in the list of commands; `LazyGroup` puts the imported command in its place before it is called."""
