"""`medddpm configs` and `medddpm pipelines`: what comes with the package."""

from __future__ import annotations

from typing import Annotated

import typer

from medddpm.cli import groups
from medddpm.cli.console import say
from medddpm.cli.run import reports_errors

Name = Annotated[str, typer.Argument(help="Name as printed by `list`.")]
Target = Annotated[str, typer.Argument(help="File or folder to copy to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    configs = _group("configs", ".yaml", "The shipped configs: list, show or copy them.")
    pipelines = _group("pipelines", ".py", "The shipped pipelines: list, show, copy or run them.")
    pipelines.command(
        "run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
    )(run_pipeline)
    app.add_typer(configs, rich_help_panel=groups.SHIPPED)
    app.add_typer(pipelines, rich_help_panel=groups.SHIPPED)


@reports_errors
def run_pipeline(
    name: Name,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Passed on to the pipeline.")
    ] = None,
) -> None:
    """Run a shipped pipeline: medddpm pipelines run NAME -- ARGUMENTS."""
    from medddpm.workflows.shipped import run_shipped_pipeline

    run_shipped_pipeline(name, arguments or [])


def _group(kind: str, suffix: str, text: str) -> typer.Typer:
    group = typer.Typer(name=kind, help=text, no_args_is_help=True, rich_markup_mode=None)

    @group.command("list")
    @reports_errors
    def list_() -> None:
        """Print the names, one a line, with what each is for."""
        from medddpm.workflows.shipped import list_shipped

        for name, summary in list_shipped(kind, suffix):
            typer.echo(f"{name:<20}{summary}".rstrip())

    @group.command("show")
    @reports_errors
    def show(name: Name) -> None:
        """Print one file."""
        from medddpm.workflows.shipped import shipped_file

        typer.echo(shipped_file(kind, suffix, name).read_text(encoding="utf-8"), nl=False)

    @group.command("copy")
    @reports_errors
    def copy(name: Name, target: Target = ".", overwrite: Overwrite = False) -> None:
        """Copy one file, to change it and keep it."""
        from medddpm.workflows.shipped import copy_shipped

        say(f"copied to {copy_shipped(kind, suffix, name, target, overwrite=overwrite)}")

    return group
