"""The groups under which `medddpm --help` lists the commands."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

RESTORE = "Restore scans"
MEASURE = "Measure and compare"
DATA = "Prepare data"
TRAIN = "Train and calibrate"
GENERATE = "Synthetic scans"
SHIPPED = "What comes with the package"
ALL = (RESTORE, MEASURE, DATA, TRAIN, GENERATE, SHIPPED)

KNOWN_NOISE = "Known noise"
METHOD = "Method"
REFERENCE = "A second contrast"
COMPLEX = "Scans with phase"
FILES = "Unusual files"
MACHINE = "Machine"


class GroupedOptions(TyperCommand):
    """Lists options by their panel: first those that a newcomer needs, under no other heading."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then one section a panel."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                plain = "Arguments" if param.param_type_name == "argument" else "Options"
                panel = getattr(param, "rich_help_panel", None) or plain
                panels.setdefault(panel, []).append(record)
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)


class GroupedHelp(TyperGroup):
    """Lists commands by their group, each with the whole first sentence of its help.

    Plain text on purpose: it is read in logs and by screen readers, too.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section a group, in the order in which the commands were added."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                group = getattr(command, "rich_help_panel", None) or "Commands"
                groups.setdefault(group, []).append((name, _sentence(command.help or "")))
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _sentence(text: str) -> str:
    """The first paragraph on one line."""
    return " ".join(text.split("\n\n")[0].split())
