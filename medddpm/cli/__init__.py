"""The command line: thin, and it imports torch only when a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from medddpm.cli import (
    benchmark,
    benchmark_raw,
    calibrate,
    calibrate_guard,
    cohort,
    compare,
    data_report,
    export,
    generate,
    import_weights,
    lesions,
    marking,
    memorisation,
    prepare,
    reconstruct,
    repeats,
    report,
    scans,
    serve_dicom,
    shipped,
    simulate,
    sweep,
    training,
)
from medddpm.cli.groups import GroupedHelp
from medddpm.cli.run import (
    interrupt_on_sigterm,
    print_names_as_they_are,
    set_debug,
    use_plain_warnings,
)
from medddpm.version import __version__

app = typer.Typer(
    name="medddpm",
    cls=GroupedHelp,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Restores noisy MRI scans with latent diffusion. For research; not a medical device.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medddpm {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    set_debug(debug)
    use_plain_warnings()
    print_names_as_they_are()


for part in (
    *(
        scans,
        reconstruct,
        simulate,
        report,
        cohort,
        serve_dicom,
        benchmark,
        benchmark_raw,
        lesions,
        repeats,
        marking,
    ),
    *(
        prepare,
        data_report,
        training,
        sweep,
        memorisation,
        calibrate,
        calibrate_guard,
        export,
        generate,
        import_weights,
        compare,
        shipped,
    ),
):
    part.register(app)


def main() -> None:
    """Entry point of the `medddpm` command."""
    interrupt_on_sigterm()
    app()
