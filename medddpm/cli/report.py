"""`medddpm report` and `medddpm replay`: see what a restoration did, and do it again."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from medddpm.cli import groups
from medddpm.cli.console import progress, say
from medddpm.cli.options import Overwrite, parse_device
from medddpm.cli.run import EXIT_FLAGGED, LeftOut, reports_errors

Source = Annotated[
    Path | None, typer.Option(help="The scan that was restored, if it is elsewhere now.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("report", rich_help_panel=groups.RESTORE)(report)
    app.command("replay", rich_help_panel=groups.RESTORE)(replay)


@reports_errors
def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", help="Restored scans, sidecars, or folders of them."),
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder for the pages; beside each result if not given.")
    ] = None,
    source: Source = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="A clean scan on the same grid, for PSNR and SSIM; for several results a folder "
            "of scans with the names of the noisy ones, or a CSV with columns `scan`, `reference`."
        ),
    ] = None,
    frame: Annotated[
        int | None, typer.Option(min=0, help="Which frame of a 4D scan to show; the first.")
    ] = None,
    index_only: Annotated[
        bool, typer.Option("--index-only", help="Only the page over all results, none a scan.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Show results as HTML pages that need no network: viewer, numbers, checks, provenance.

    Of several results a bad one is named and left out; the others also get a page that compares
    them, index.html, outliers first.
    """
    left_out = LeftOut()
    with progress("report") as step:
        from medddpm.workflows.reporting import report as run

        done = run(
            results,
            out=out,
            source=source,
            reference=reference,
            frame=frame,
            index_only=index_only,
            overwrite=overwrite,
            on_error=left_out,
            on_progress=partial(step, "report"),
        )
    if done.without_reference:
        say(f"no reference for {', '.join(done.without_reference)}: SNR and CNR instead of PSNR")
    for page in [*done.pages, *([done.index] if done.index else [])]:
        typer.echo(f"{page}")
    left_out.exit_if_any(len(done.pages))


@reports_errors
def replay(
    sidecar: Annotated[
        Path, typer.Argument(metavar="SIDECAR", help="The .json beside a restored scan.")
    ],
    source: Source = None,
    weights: Annotated[
        str | None, typer.Option(help="The weights, if they are elsewhere now.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda or cuda:N; that of the first run if not given."),
    ] = None,
    noise_map: Annotated[
        Path | None, typer.Option(help="The noise map, if it is elsewhere now.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="The second contrast, if it is elsewhere now.")
    ] = None,
) -> None:
    """Restore again as a sidecar says and compare every bit; nothing is written.

    Exit codes: 0 the same voxels; 6 others, and the differences are named; 3 the input or the
    weights are gone or have changed.
    """
    with progress("replay") as step:
        from medddpm.workflows.replaying import replay as run

        done = run(
            sidecar,
            source=source,
            weights=weights,
            device=None if device is None else parse_device(device),
            noise_map=noise_map,
            reference=reference,
            on_progress=step,
        )
    same = "the same bytes" if done.same_file else "the same voxels"
    typer.echo(f"{sidecar.name}: {same if done.same_voxels else 'NOT the same'}")
    for line in done.differences:
        typer.echo(f"  {line}")
    if not done.same_voxels:
        raise typer.Exit(EXIT_FLAGGED)
