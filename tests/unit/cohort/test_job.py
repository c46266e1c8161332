"""One scan: restored as `restore` does it, skipped when done, its faults kept to itself."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medddpm.cohort import job as module
from medddpm.cohort.claims import claimed
from medddpm.cohort.job import Settings, do_job
from medddpm.cohort.run import make_settings
from medddpm.cohort.sources import Job, find_jobs
from medddpm.io.results import read_result
from medddpm.restoration.options import RestoreOptions
from medddpm.volume import Volume
from medddpm.workflows.restoring import restore

OPTIONS = RestoreOptions(sigma=50.0)


@pytest.fixture
def settings(tmp_path: Path, tiny_weights: Path) -> Settings:
    return make_settings(tmp_path / "out", OPTIONS, tiny_weights, device="cpu")


@pytest.fixture
def scan(noisy_nifti: Path) -> Job:
    return Job("noisy", (noisy_nifti,), stem="noisy_desc-denoised")


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != ".medddpm")


def test_the_bytes_of_restore(
    scan: Job, settings: Settings, tiny_weights: Path, tmp_path: Path
) -> None:
    outcome = do_job(scan, replace(settings, threads=1))
    [alone] = restore(scan.files[0], tmp_path / "alone", options=OPTIONS, weights=tiny_weights)
    assert outcome.is_done
    [name] = outcome.outputs
    assert (settings.out / name).read_bytes() == alone.image.read_bytes()


def test_done_is_skipped_until_something_changes(
    scan: Job, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not do_job(scan, settings).skipped
    assert do_job(scan, settings).skipped
    os.utime(scan.files[0])  # another time, the same bytes
    assert do_job(scan, settings).skipped
    assert do_job(scan, replace(settings, options=replace(OPTIONS, memory_gb=9.0))).skipped
    changed = replace(settings, options=replace(OPTIONS, fidelity=0.5))
    assert not do_job(scan, changed).skipped
    assert do_job(scan, changed).skipped
    (settings.out / "noisy_desc-denoised.nii.gz").unlink()
    assert not do_job(scan, changed).skipped


def test_a_report_beside_the_scan(scan: Job, settings: Settings) -> None:
    [name] = do_job(scan, replace(settings, report=True)).outputs
    page = (settings.out / name).with_name("noisy_desc-denoised.html")
    assert "<!doctype html>" in page.read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("trust", ["sform", "qform"])
def test_a_trusted_form_and_the_other_one_stays(
    trust: Any, scan: Job, settings: Settings, noisy_phantom: Volume
) -> None:
    image = nib.nifti1.Nifti1Image(noisy_phantom.data, noisy_phantom.affine)
    image.set_sform(noisy_phantom.affine, code=1)
    image.set_qform(np.diag([1.0, 1.1, 1.3, 1.0]), code=1)
    nib.save(image, scan.files[0])
    refused = do_job(scan, settings)
    assert refused.error == "GeometryError"
    assert "--trust sform" in refused.reason
    outcome = do_job(scan, replace(settings, trust=trust))
    assert outcome.is_done
    before, after = (
        nib.load(path).header for path in (scan.files[0], settings.out / outcome.outputs[0])
    )
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "quatern_b", "qoffset_x"):
        assert np.array_equal(before[field], after[field])
    facts = json.loads((settings.out / "noisy_desc-denoised.json").read_text())
    assert facts["run"]["trust"] == trust
    result = read_result(settings.out / "noisy_desc-denoised.json")
    expected = image.get_sform() if trust == "sform" else image.get_qform()
    assert np.allclose(result.read().affine, expected, atol=1e-4)


def test_another_input_of_the_name_is_restored(
    scan: Job, settings: Settings, noisy_phantom: Volume, save_nifti: Any
) -> None:
    first = do_job(scan, settings)
    save_nifti(scan.files[0], noisy_phantom.data * 2, noisy_phantom.affine)
    second = do_job(scan, settings)
    assert not second.skipped
    assert second.checksum != first.checksum


def test_what_another_process_is_at_is_left_to_it(scan: Job, settings: Settings) -> None:
    with claimed(settings.claims, scan.key, "other"):
        assert do_job(scan, settings).state == "busy"
    assert files(settings.out) == []
    assert do_job(scan, settings).is_done


def test_an_input_that_changes_while_it_is_read(
    scan: Job, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_change(path: Path, **options: Any) -> Any:
        volumes = module_read(path, **options)
        with path.open("ab") as file:
            file.write(b"more")
        return volumes

    module_read = module.read_volumes
    monkeypatch.setattr(module, "read_volumes", read_and_change)
    outcome = do_job(scan, settings)
    assert (outcome.state, outcome.error) == ("failed", "VolumeReadError")
    assert "changed while it was read" in outcome.reason
    assert files(settings.out) == []


def test_a_bug_fails_one_scan_and_tells_nothing_of_its_content(
    scan: Job, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("Private^Person")

    monkeypatch.setattr(module, "_read", fail)
    outcome = do_job(scan, settings)
    assert (outcome.state, outcome.error) == ("failed", "bug")
    assert outcome.reason.startswith("KeyError at test_job.py:")
    assert "Private" not in repr(outcome)


@pytest.mark.parametrize("place", ["write_restored", "save_outcome"])
def test_a_full_disk_stops_the_run(
    place: str, scan: Job, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, place, full)
        outcome = do_job(scan, settings)
    assert outcome.state == "stopped"
    assert "No space left" in outcome.reason
    assert not list(settings.out.glob(".medddpm-*"))
    assert do_job(scan, settings).is_done


def test_a_file_of_somebody_else_is_kept(scan: Job, settings: Settings) -> None:
    path = settings.out / "noisy_desc-denoised.nii.gz"
    path.parent.mkdir()
    path.write_text("mine")
    outcome = do_job(scan, settings)
    assert outcome.state == "failed"
    assert "not made here" in outcome.reason
    assert path.read_text() == "mine"


def test_half_an_output_of_a_killed_process_is_replaced(scan: Job, settings: Settings) -> None:
    hidden = settings.out / f".medddpm-{scan.key}-x"
    hidden.mkdir(parents=True)
    (settings.out / "noisy_desc-denoised.nii.gz").write_text("half")
    assert do_job(scan, settings).is_done
    assert files(settings.out) == ["noisy_desc-denoised.json", "noisy_desc-denoised.nii.gz"]


def test_a_series_and_its_faults_without_names(
    settings: Settings, noisy_phantom: Volume, dicom_series: Callable[..., Path], tmp_path: Path
) -> None:
    folder = dicom_series(tmp_path / "Private^Person", noisy_phantom.data)
    [series] = find_jobs(folder, tmp_path / "out").jobs
    outcome = do_job(series, replace(settings, format="dicom"))
    assert outcome.is_done
    assert outcome.outputs == [f"001-T1w_{series.name}_desc-denoised"]
    assert len(list((settings.out / outcome.outputs[0]).iterdir())) == 26
    path = series.files[3]
    path.write_bytes(path.read_bytes()[:300])
    outcome = do_job(series, replace(settings, format="dicom"))
    assert outcome.state == "failed"
    assert "Private" not in repr(outcome)
    assert path.name not in repr(outcome)


def test_content_that_was_not_fetched(scan: Job, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "gone.nii.gz").symlink_to(".git/annex/objects/x")
    outcome = do_job(replace(scan, files=(tmp_path / "gone.nii.gz",)), settings)
    assert (outcome.state, outcome.error) == ("failed", "ContentAbsentError")
    assert "was not fetched" in outcome.reason
