from __future__ import annotations

from pathlib import Path

import pytest

from medddpm.bids.names import BidsTarget, entities, find_bids_scans, is_bids, output_stem


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
    assert len(find_bids_scans(tmp_path)) == 2
    assert [p.name for p in find_bids_scans(tmp_path, ["1"])] == ["sub-1_T1w.nii"]
    assert [p.name for p in find_bids_scans(tmp_path, (), ["a"])] == ["sub-2_ses-a_T1w.nii.gz"]
