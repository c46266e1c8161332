"""`medddpm serve-dicom`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from medddpm.cli import groups
from medddpm.cli.console import say
from medddpm.cli.options import Device, Overrides, Weights, parse_device
from medddpm.cli.run import reports_errors
from medddpm.signals import stop_requests


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("serve-dicom", rich_help_panel=groups.RESTORE)(serve_dicom)


@reports_errors
def serve_dicom(
    out: Annotated[Path, typer.Option(help="Folder of the queue and of what is restored.")],
    send_to: Annotated[str, typer.Option(metavar="AET@HOST:PORT", help="Destination.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="AET", help="Who may send; repeat it, or say `any`."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="To listen on.")] = 11112,
    aet: Annotated[str, typer.Option(help="Our AE title.")] = "MEDDDPM",
    rules: Annotated[
        Path | None, typer.Option(help="YAML: which series, limits, waits, TLS; docs/node.md.")
    ] = None,
    health_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Health report (JSON) on localhost.")
    ] = None,
    device: Device = "auto",
    weights: Weights = "default",
    overrides: Overrides = None,
) -> None:
    """Receive DICOM series, restore those that the rules select, and send them on.

    What was accepted is on the disk and survives any crash: start the node again and it goes on.
    SIGTERM and Ctrl-C end it when the series in hand is finished. Needs the extra `node`.
    """
    from medddpm.config import load_config
    from medddpm.node.options import load_options
    from medddpm.node.serve import serve_dicom as serve

    config = load_config(None, overrides or [])
    node = load_options(rules)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("medddpm").setLevel(logging.INFO)
    with stop_requests() as stop:
        serve(
            out,
            port=port,
            aet=aet,
            send_to=send_to,
            allow=allow or [],
            node=node,
            options=config.restore,
            weights=weights,
            device=parse_device(device),
            health_port=health_port,
            stop=stop,
            on_news=say,
        )
