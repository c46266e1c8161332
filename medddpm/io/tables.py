"""Tables as text: those that people give, whatever program saved them, and those written here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medddpm.errors import ConfigError
from medddpm.io.files import atomic_path

SUFFIXES = (".csv", ".tsv", ".txt")
_SEPARATORS = (",", ";", "\t")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")  # noqa: RUF001 (the wide forms run as well)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        number: Of the line in the file, where it ends; the header is in line 1.
        cells: Column to text without surrounding white space; "" where there is nothing.
    """

    number: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def get(self, column: str) -> str:
        """The cell, "" if there is no such column."""
        return self.cells.get(column, "")

    def path(self, folder: Path, column: str = "file") -> Path:
        """The file that a cell names, there or not.

        Args:
            folder: What the cell is relative to.
            column: Of the cell.

        Raises:
            ConfigError: Nothing can be called that, or it may not be looked at.
        """
        path = folder / self.cells[column]
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no name of a file"
            raise ConfigError(f"line {self.number} of the table, {column}: {why}") from None
        return path


def is_table(path: Path) -> bool:
    """True if a file is a table by its name."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_table(
    path: Path, needed: Sequence[str], what: str = "the table", *, errors: str = "strict"
) -> list[Line]:
    """The lines of a CSV in UTF-8, or in UTF-16 with a byte order mark.

    Cells are separated by comma, semicolon or tab: whichever gives the header its columns. Names
    of columns are compared without regard to case. Empty lines are left out. What `write_table`
    put before a cell that a spreadsheet would take for a formula is taken away.

    Args:
        path: The file.
        needed: Columns that must be there.
        what: What messages call it.
        errors: What becomes of bytes that are no UTF-8, as for `bytes.decode`.

    Raises:
        ConfigError: It cannot be read, is no such table, lacks a column, has a column twice, or a
            line has more cells than the header. Messages name lines and no cell.
    """
    text = _text(path, what, errors)
    separator, skipped = _separator(text, needed)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines: list[Line] = []
    columns: list[str] = []
    try:
        for cells in rows:
            if rows.line_num <= skipped or not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = _columns(cells, needed, path, what)
            else:
                lines.append(_line(rows.line_num, cells, columns, path, what))
    except csv.Error as error:
        raise ConfigError(f"{what} {path}, line {rows.line_num}: {error}") from None
    if not columns:
        raise ConfigError(f"{what} {path} is empty; it needs the columns {', '.join(needed)}")
    return lines


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV by atomic rename; the same rows give the same bytes.

    A text that a spreadsheet would run as a formula gets a ' before it (OWASP, "CSV injection");
    numbers stay as they are, and `read_table` takes the ' away.

    Args:
        path: Where to.
        header: Names of the columns.
        rows: In the caller's order.

    Raises:
        OutputError: The disk is full or read-only.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    with atomic_path(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")


def _harmless(cell: object) -> object:
    is_formula = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def _text(path: Path, what: str, errors: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror or error}") from None
    try:
        text = content.decode("utf-16" if content[:2] in _UTF16 else "utf-8-sig", errors)
    except UnicodeDecodeError:
        raise ConfigError(f"{what} {path} is no CSV table in UTF-8; save it as CSV UTF-8") from None
    if "\0" in text:
        raise ConfigError(f"{what} {path} is no CSV table: it holds zero bytes")
    return text


def _separator(text: str, needed: Sequence[str]) -> tuple[str, int]:
    """The separator, and how many lines only state it ("sep=;", as Excel writes)."""
    stated = re.match(r"sep=([,;\t])\r?\n", text)
    if stated:
        return stated[1], 1
    header = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")

    def fitness(separator: str) -> tuple[int, int]:
        names = [name.strip('" ').casefold() for name in header.split(separator)]
        return len({*needed} & {*names}), len(names)

    return max(_SEPARATORS, key=fitness), 0


def _columns(cells: Sequence[str], needed: Sequence[str], path: Path, what: str) -> list[str]:
    columns = [cell.strip().casefold() for cell in cells]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ConfigError(
            f"{what} {path} has no column {', '.join(missing)}: its first line names the columns, "
            "separated by comma, semicolon or tab"
        )
    named = [name for name in columns if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice:
        raise ConfigError(f"{what} {path} has the column {twice!r} twice; keep one")
    return columns


def _line(number: int, cells: list[str], columns: list[str], path: Path, what: str) -> Line:
    if any(cell.strip() for cell in cells[len(columns) :]):
        raise ConfigError(
            f"{what} {path}, line {number}: there are more cells than columns; put a cell that "
            'holds the separator in quotation marks: "a,b"'
        )
    cells = cells + [""] * (len(columns) - len(cells))
    plain = (cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell for cell in cells)
    return Line(number, {n: c.strip() for n, c in zip(columns, plain, strict=False) if n})
