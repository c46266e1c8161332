from __future__ import annotations

from pathlib import Path

import pytest

from medddpm.cohort.bids.names import (
    BidsTarget,
    entities,
    find_bids_scans,
    is_bids,
    output_stem,
    reasons,
)


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [
        ("sub-01_T1w", "sub-01_desc-denoised_T1w"),
        ("sub-01_ses-a_run-2_FLAIR", "sub-01_ses-a_run-2_desc-denoised_FLAIR"),
        ("sub-01_desc-defaced_T1w", "sub-01_desc-denoised_T1w"),
    ],
)
def test_output_names(stem: str, wanted: str) -> None:
    assert output_stem(stem) == wanted


def test_maps_have_names_of_their_own() -> None:
    target = BidsTarget(Path("out"), "sub-01_desc-denoised_T1w", ".nii.gz")
    assert target.part("std").name == "sub-01_desc-denoisedstd_T1w.nii.gz"
    assert target.image.name == "sub-01_desc-denoised_T1w.nii.gz"


def test_entities() -> None:
    assert entities("sub-01_acq-x-y_T1w") == {"sub": "01", "acq": "x-y", "suffix": "T1w"}


def test_scans_by_subject_and_session(tmp_path: Path) -> None:
    for name in ("sub-1/anat/sub-1_T1w.nii", "sub-2/ses-a/anat/sub-2_ses-a_T1w.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "sub-1" / "anat" / "sub-1_defacemask.nii").touch()
    assert not is_bids(tmp_path)
    (tmp_path / "dataset_description.json").touch()
    assert is_bids(tmp_path)
    assert len(find_bids_scans(tmp_path).scans) == 2
    assert [p.name for p in find_bids_scans(tmp_path, ["1"]).scans] == ["sub-1_T1w.nii"]
    assert [p.name for p in find_bids_scans(tmp_path, (), ["a"]).scans] == [
        "sub-2_ses-a_T1w.nii.gz"
    ]


KINDS = (
    "T1w T2w PDw T2starw FLAIR inplaneT1 inplaneT2 PDT2 angio T2star FLASH PD MESE MEGRE VFA IRT1 "
    "MP2RAGE MPM MTS MTR UNIT1"
)
MAPS = (
    "T1map T2map T2starmap R1map R2map R2starmap PDmap MTRmap MTsat T1rho MWFmap MTVmap Chimap "
    "S0map M0map"
)


def test_every_anatomical_suffix_of_bids(tmp_path: Path) -> None:
    anat = tmp_path / "sub-1" / "anat"
    anat.mkdir(parents=True)
    parts = [f"part-{part}_MEGRE" for part in ("phase", "real", "imag", "mag")]
    for name in (*KINDS.split(), *MAPS.split(), *parts, "defacemask", "dseg"):
        (anat / f"sub-1_{name}.nii.gz").touch()
    (anat / "._sub-1_T1w.nii.gz").touch()  # of macOS
    found = find_bids_scans(tmp_path)
    names = {path.name.removeprefix("sub-1_").removesuffix(".nii.gz") for path in found.scans}
    assert names == {*KINDS.split(), "part-mag_MEGRE"}
    assert len(found.left_out) == len(MAPS.split()) + 5
    said = reasons(found.left_out)
    assert "left out, 1 x: M0map is a quantitative map, without noise of a known law" in said
    assert "left out, 1 x: part-phase is no magnitude image" in said
    assert "left out, 1 x: defacemask is a mask, and no scan" in said
    assert "left out, 1 x: dseg is no anatomical suffix" in said
