"""The command line: one file a subcommand, loaded when it is asked for, so that each starts as fast as what it does allows."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import click

import dslc

COMMANDS = {
    "check": "Parse and type-check: all errors at once.",
    "explain": "Say more about an error code.",
    "compile": "Compile a model to an artifact.",
    "run": "Run a model on arrays or pictures.",
    "train": "Run a training recipe.",
    "summary": "Layers with shapes, parameters and arithmetic.",
    "show": "Print a stage of the compiler.",
    "bench": "Time a model, kernel by kernel.",
    "fmt": "Format .dl files.",
    "ops": "The operators and the layer library.",
    "cache": "The cache of compiled code.",
    "doctor": "What this machine offers.",
}
"""The subcommands and what they do: the list is shown without loading them."""


class Commands(click.Group):
    """Finds a subcommand in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"dslc.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dslc.__version__, prog_name="dslc")
@click.option("--traceback", is_flag=True, help="Show the Python traceback of an internal error.")
def cli(traceback: bool) -> None:
    """Neural networks from .dl files, compiled to native SIMD kernels.

    F is a path, or the name of a network that comes with dslc: digits, lenet, mlp.

    Example: dslc train digits
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """The program: exit status 0, 1 for a diagnostic, 2 for wrong usage, 130 where it was interrupted."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """The exit status of a command line; nothing that goes wrong shows a traceback unless asked for."""
    from dslc.diagnostics import DiagnosticError

    try:
        result = cli.main(arguments, prog_name="dslc", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except DiagnosticError as error:
        from dslc.cli.output import show_error

        return show_error(error, "--json" in arguments)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:  # `dslc show ... | head`
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as error:
        from dslc.cli.output import show_internal_error

        return show_internal_error(error, "--traceback" in arguments)
