"""Which clean scan goes with which result."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.sidecars import content_of

from medddpm.errors import ConfigError
from medddpm.io.results import Result
from medddpm.io.sidecar import Sidecar
from medddpm.workflows.references import find_references


def _facts(name: str) -> Sidecar:
    told = content_of()
    told["input"]["case_id"] = name
    return Sidecar.model_validate(told)


@pytest.fixture
def results(tmp_path: Path) -> list[Result]:
    """Three results, restored from a, b and c."""
    return [Result(tmp_path / "out" / f"{name}_desc-denoised.json", _facts(name)) for name in "abc"]


def touched(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folder_gives_each_the_scan_of_its_name(results: list[Result], tmp_path: Path) -> None:
    a = touched(tmp_path / "clean" / "deep" / "a.nii.gz")
    c = touched(tmp_path / "clean" / "c_desc-denoised.nii")
    touched(tmp_path / "clean" / "other.nii.gz")
    found = find_references(results, tmp_path / "clean")
    assert found == {results[0].sidecar: a, results[2].sidecar: c}
    touched(tmp_path / "clean" / "a.nii")
    with pytest.raises(ConfigError, match="2 scans that are called a; say in a CSV"):
        find_references(results, tmp_path / "clean")


def test_a_table_may_name_scan_or_result(results: list[Result], tmp_path: Path) -> None:
    clean = touched(tmp_path / "clean" / "x.nii.gz")
    table = tmp_path / "clean" / "table.csv"
    table.write_text("\ufeffscan,reference\na,x.nii.gz\nsome/b_desc-denoised.nii.gz,x.nii.gz\n,\n")
    found = find_references(results, table)
    assert found == dict.fromkeys((r.sidecar for r in results[:2]), clean)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("scan,clean\na,x\n", "no column reference"),
        ("scan,reference\n", "names no scan"),
        ("scan,reference\na,gone.nii.gz\n", "which does not exist"),
        ("scan,reference\nz,table.csv\n", "no scan for any result: a_desc-denoised, for one"),
    ],
)
def test_a_table_that_is_of_no_use(
    text: str, match: str, results: list[Result], tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ConfigError, match=match):
        find_references(results, tmp_path / "table.csv")


def test_one_scan_is_for_one_result(results: list[Result], tmp_path: Path) -> None:
    clean = touched(tmp_path / "x.nii.gz")
    assert find_references(results[:1], clean) == {results[0].sidecar: clean}
    assert find_references(results, None) == {}
    with pytest.raises(ConfigError, match="is one scan, and here are 3 results"):
        find_references(results, clean)
    with pytest.raises(ConfigError, match="does not exist"):
        find_references(results, tmp_path / "gone")
    (tmp_path / "dicom").mkdir()  # a folder without NIfTI is a DICOM series: one scan
    touched(tmp_path / "dicom" / "1.dcm")
    assert find_references(results[:1], tmp_path / "dicom") == {
        results[0].sidecar: tmp_path / "dicom"
    }
