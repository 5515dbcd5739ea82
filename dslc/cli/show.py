"""`dslc show`."""

from __future__ import annotations

from pathlib import Path

import click

from dslc.cli.output import Compiling, compile_options, parse_dims
from dslc.diagnostics import Diagnostic, DiagnosticError


@click.command("show")
@click.argument("file", metavar="F[:NAME]")
@click.option("--stage", type=click.Choice(["graph", "clusters", "loops", "kernels", "memory", "asm"]), default="graph", show_default=True)
@click.option("--after", metavar="PASS", help="The graph after this pass instead of the last one.")
@click.option("--train", is_flag=True, help="NAME is a recipe: its training and evaluation programs.")
@click.option("--svg", metavar="OUT", type=click.Path(path_type=Path), help="Draw the graph, or with --stage memory the memory plan.")
@click.option("--batch", type=click.IntRange(1), default=1, help="The batch of the drawn memory plan.")
@compile_options
def command(
    file: str, stage: str, after: str | None, train: bool, svg: Path | None, batch: int, dims: tuple[str, ...],
    threads: int | None, width: str | None, precision: str | None,
) -> None:  # fmt: skip
    """Print a stage of the compiler: the typed graph, fused clusters, loop programs, generated kernels, the memory plan, machine code.

    Example: dslc show lenet --stage kernels
    """
    from dslc.api.compilation import obtain, options_of, request_of
    from dslc.api.sources import split_name
    from dslc.api.stages import Stages

    path, name = split_name(file)
    progress = Compiling()
    if path.endswith(".dlc"):
        from dslc.api.compilation import load

        stages = load(path).stages
    else:
        options = options_of(None, precision, threads, int(width) if width else None, True)
        ready = obtain(request_of(path, name, train, parse_dims(dims), options), progress=progress)
        stages = Stages.of(ready.artifact.graph, ready.compiled, ready.plan)
    progress.end()
    if svg is None:
        print(stages.text(stage, after), end="")
        return
    from dslc.api.picture import graph_svg, memory_svg

    drawn = memory_svg(stages.compiled.plan.programs[0], batch) if stage == "memory" else graph_svg(stages.module)
    try:
        svg.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise DiagnosticError(Diagnostic("DL0803", f"{svg} cannot be written: {error.strerror or error}")) from error
