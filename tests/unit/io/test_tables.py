from __future__ import annotations

from pathlib import Path

import pytest

from medddpm.errors import ConfigError
from medddpm.io.tables import read_table, write_table

TEXT = "file{s}scan{s}age\na b.nii{s}one{s}3\nc.nii{s}{s}\n"
WANTED = [
    {"file": "a b.nii", "scan": "one", "age": "3"},
    {"file": "c.nii", "scan": "", "age": ""},
]


def cells(path: Path, needed: tuple[str, ...] = ("file",)) -> list[dict[str, str]]:
    return [line.cells for line in read_table(path, needed)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_programs_save(separator: str, encoding: str, end: str, tmp_path: Path) -> None:
    text = TEXT.format(s=separator).replace("\n", end)
    content = text.encode(encoding.removesuffix("-bom"))
    if encoding.endswith("-bom"):
        content = b"\xff\xfe" + content
    (tmp_path / "t.csv").write_bytes(content)
    assert cells(tmp_path / "t.csv") == WANTED


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nfile;scan;age\na b.nii;one;3\nc.nii;;\n",
        "\n\nfile,scan,age\n\na b.nii,one,3\n,,\nc.nii\n\n",  # empty lines, a short one
        "File, Scan ,AGE,,\na b.nii, one ,3,,\nc.nii,,,,\n",  # case, white space, empty columns
        '"file";"scan";"age"\n"a b.nii";"one";3\n"c.nii";"";\n',
        "file,scan,age\na b.nii,one,3\nc.nii,,",  # no line end
    ],
)
def test_what_people_leave_in_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert cells(tmp_path / "t.csv") == WANTED


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n;;\n", "no column file"),
        (b"name,scan\nx,y\n", "no column file"),
        (b"file,scan,File\na,b,c\n", "the column 'file' twice"),
        (b"file,scan\na,b.nii,one\n", "line 2: there are more cells"),
        (b'file,scan\n"a,one\nb,two\n', "line 3: unexpected end of data"),
        (b"file\nm\xfcller.nii\n", "CSV UTF-8"),
        (b"file\na\0b\n", "zero bytes"),
        (b"file\n" + b"x" * 200_000, "field larger"),
    ],
)
def test_what_is_no_table(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_table(tmp_path / "t.csv", ("file",))


def test_a_missing_table_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_table(path, ("file",))


FORMULAS = ["=1+1", "+A1", "-x", "@SUM(A1)", "\tx", "=cmd|' /C calc'!A0", "\uff1d1", "'=1", "''-a"]


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    numbers = [-1, -0.5, "-0.06", "+3", "-1e-5", None, "a-b", "", "'quoted'"]
    rows = [[text, number] for text, number in zip(FORMULAS, numbers, strict=True)]
    write_table(path, ("text", "number"), rows)
    raw = [line.partition(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    assert all(cell.lstrip('"').startswith("'") for cell, _, _ in raw)
    assert [number for _, _, number in raw] == ["" if n is None else str(n) for n in numbers]
    back = read_table(path, ("text", "number"))
    assert [line["text"] for line in back] == [text.strip() for text in FORMULAS]
