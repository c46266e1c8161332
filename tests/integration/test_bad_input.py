"""Each thing that can be wrong: a clear message, the right exit code, nothing written."""

from __future__ import annotations

import errno
import json
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

Cli = Callable[..., Any]
Maker = Callable[[Path, Any], Path]
READ, GEOMETRY = 3, 4


def nifti(path: Path, data: Any, affine: Any = None, **forms: Any) -> Path:
    affine = np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine
    image = nib.nifti1.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(forms.get("qform", affine), code=1)
    nib.save(image, path)
    return path


def with_value(value: float) -> Maker:
    def make(folder: Path, head: Any) -> Path:
        data = head((20, 20, 12)).copy()
        data[3, 4, 5] = value
        return nifti(folder / "bad.nii.gz", data)

    return make


def filled(value: float, shape: tuple[int, ...] = (20, 20, 12)) -> Maker:
    return lambda folder, head: nifti(folder / "bad.nii.gz", np.full(shape, value, np.float32))


def missing(folder: Path, head: Any) -> Path:
    return folder / "missing.nii.gz"


def not_an_image(folder: Path, head: Any) -> Path:
    path = folder / "bad.nii.gz"
    path.write_text("this is no scan")
    return path


def truncated(folder: Path, head: Any) -> Path:
    path = nifti(folder / "bad.nii.gz", np.random.default_rng(0).random((20, 20, 12), np.float32))
    path.write_bytes(path.read_bytes()[:5000])
    return path


def five_dimensions(folder: Path, head: Any) -> Path:
    return nifti(folder / "bad.nii.gz", np.ones((8, 8, 8, 2, 2), np.float32))


def one_slice(folder: Path, head: Any) -> Path:
    return nifti(folder / "bad.nii.gz", head((20, 20, 3))[:, :, 1:2])


def complex_values(folder: Path, head: Any) -> Path:
    values = head((20, 20, 12)).astype(np.complex64)
    values[3, 3, 3] = np.nan * 1j
    return nifti(folder / "bad.nii.gz", values)


def rgb(folder: Path, head: Any) -> Path:
    colours = np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return nifti(folder / "bad.nii.gz", colours)


def header_bytes(folder: Path, head: Any, change: Callable[[bytearray], None]) -> Path:
    path = nifti(folder / "bad.nii", head((20, 20, 12)))
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(bytes(content))
    return path


def zero_affine(folder: Path, head: Any) -> Path:
    def change(content: bytearray) -> None:
        content[280:328] = bytes(48)  # srow_x, srow_y, srow_z
        content[252:254] = struct.pack("<h", 0)  # qform_code

    return header_bytes(folder, head, change)


def singular_affine(folder: Path, head: Any) -> Path:
    def change(content: bytearray) -> None:
        content[296:312] = content[280:296]  # srow_y = srow_x
        content[252:254] = struct.pack("<h", 0)

    return header_bytes(folder, head, change)


def forms_disagree(folder: Path, head: Any) -> Path:
    turned = np.array([[0, 1.0, 0, 9], [-1.0, 0, 0, 3], [0, 0, 2.0, 1], [0, 0, 0, 1]])
    return nifti(folder / "bad.nii.gz", head((20, 20, 12)), qform=turned)


def empty_folder(folder: Path, head: Any) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def folder_of_text(folder: Path, head: Any) -> Path:
    (folder / "text").mkdir()
    (folder / "text" / "notes.txt").write_text("nothing here")
    return folder / "text"


NIFTI_CASES = [
    pytest.param(missing, READ, id="missing"),
    pytest.param(not_an_image, READ, id="text"),
    pytest.param(truncated, READ, id="truncated"),
    pytest.param(with_value(np.nan), READ, id="nan"),
    pytest.param(with_value(np.inf), READ, id="inf"),
    pytest.param(filled(0), READ, id="zeros"),
    pytest.param(filled(7), READ, id="constant"),
    pytest.param(one_slice, READ, id="slice"),
    pytest.param(five_dimensions, READ, id="5d"),
    pytest.param(complex_values, READ, id="complex"),
    pytest.param(rgb, READ, id="rgb"),
    pytest.param(zero_affine, GEOMETRY, id="zero-affine"),
    pytest.param(singular_affine, GEOMETRY, id="singular"),
    pytest.param(forms_disagree, GEOMETRY, id="forms"),
    pytest.param(empty_folder, READ, id="empty-folder"),
    pytest.param(folder_of_text, READ, id="text-folder"),
]


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def check(done: Any, code: int, folder: Path, before: set[str]) -> None:
    assert done.exit_code == code, done.stderr
    message = done.stderr.splitlines()[-1]  # there may be progress or warnings before it
    assert "medddpm: " in done.stderr
    assert "Traceback" not in done.stderr
    assert len(message) > 30
    assert tree(folder) == before


@pytest.mark.parametrize(("make", "code"), NIFTI_CASES)
def test_bad_files(
    make: Maker, code: int, cli: Cli, head: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    """Whatever is done with the file, what is wrong with it is named."""
    source = make(tmp_path, head)
    before = tree(tmp_path)
    for words in (
        ("restore", source, tmp_path / "out", "--weights", tiny_weights),
        ("convert", source, tmp_path / "out"),
        ("simulate", source, tmp_path / "out", "--sigma", 0.1),
        ("estimate-noise", source),
        ("evaluate", source, source),
        ("info", source),
    ):
        done = cli(*words)
        check(done, code, tmp_path, before)
        assert str(source) in done.stderr
        assert done.stdout == ""


def _change_slice(folder: Path, change: Callable[[Any], None]) -> None:
    import pydicom

    path = sorted(folder.iterdir())[2]
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path, enforce_file_format=True)


def _other_orientation(dataset: Any) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, 1]


def _other_size(dataset: Any) -> None:
    dataset.Rows -= 1
    dataset.PixelData = dataset.PixelData[: dataset.Rows * dataset.Columns * 2]


def _no_pixels(dataset: Any) -> None:
    del dataset.PixelData


def _duplicate(dataset: Any) -> None:
    dataset.ImagePositionPatient = [-30.0, -40.0, -25.0]


@pytest.mark.parametrize(
    "change", [_other_orientation, _other_size, _no_pixels, _duplicate], ids=lambda f: f.__name__
)
def test_bad_series(
    change: Any, cli: Cli, head: Any, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    folder = dicom_series(tmp_path / "d", head((20, 20, 12)))
    _change_slice(folder, change)
    before = tree(tmp_path)
    done = cli("restore", folder, tmp_path / "out", "--weights", tiny_weights)
    assert done.exit_code in (READ, GEOMETRY)
    check(done, done.exit_code, tmp_path, before)


def test_missing_slices(
    cli: Cli, head: Any, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    folder = dicom_series(tmp_path / "d", head((20, 20, 12)), skip=(4, 5))
    before = tree(tmp_path)
    done = cli("restore", folder, tmp_path / "out", "--weights", tiny_weights)
    check(done, READ, tmp_path, before)


def test_ct_needs_force(
    cli: Cli, head: Any, dicom_series: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    folder = dicom_series(tmp_path / "d", head((20, 20, 12)), modality="CT")
    before = tree(tmp_path)
    arguments = ("restore", folder, tmp_path / "out", "--weights", tiny_weights)
    done = cli(*arguments)
    check(done, READ, tmp_path, before)
    assert "--force" in done.stderr
    assert cli(*arguments, "--force", "--sigma", 50).exit_code in (0, 6)


@pytest.mark.parametrize("output", ["no/such/out.nii.gz", "no/such/folder"])
def test_missing_output_folder(
    output: str, cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    done = cli("restore", noisy_nifti, tmp_path / output, "--weights", tiny_weights)
    check(done, 5, tmp_path, before)


def test_read_only_output_folder(cli: Cli, noisy_nifti: Path, tiny_weights: Path) -> None:
    done = cli("restore", noisy_nifti, "/proc/out.nii.gz", "--weights", tiny_weights)
    check(done, 5, noisy_nifti.parent, tree(noisy_nifti.parent))


def test_full_disk(
    cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("medddpm.workflows.restored_files.write_volume", full)
    before = tree(tmp_path)
    done = cli("restore", noisy_nifti, tmp_path / "out", "--weights", tiny_weights)
    check(done, 5, tmp_path, before)
    assert "No space left" in done.stderr


@pytest.mark.parametrize("verb", ["restore", "simulate", "convert", "convert-dicom"])
def test_a_write_that_fails_half_way(
    verb: str, cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """As on a full disk, in the real writer: no file may grow over 2 kB."""
    resource = pytest.importorskip("resource")
    options = {
        "restore": ("--weights", tiny_weights),
        "simulate": ("--sigma", 0.1),
        "convert": (),
        "convert-dicom": ("--format", "dicom"),
    }[verb]
    before = tree(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        done = cli(verb.split("-")[0], noisy_nifti, tmp_path / "out", *options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check(done, 5, tmp_path, before)
    assert "File too large" in done.stderr
    assert ".medddpm-" not in done.stderr  # the place where it is made is no name for a person


@pytest.mark.parametrize("harm", ["short", "version", "foreign", "missing", "name"])
def test_bad_weights(
    harm: str, cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    content = tiny_weights.read_bytes()
    if harm == "short":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "version":
        path.write_bytes(_with_version(content, 99))
    elif harm == "foreign":
        path.write_text("these are no weights at all")
    before = tree(tmp_path)
    given = "no-such-model" if harm == "name" else path
    done = cli("restore", noisy_nifti, tmp_path / "out", "--weights", given)
    check(done, 2 if harm == "name" else 3, tmp_path, before)


def _with_version(content: bytes, version: int) -> bytes:
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    inner = json.loads(header["__metadata__"]["medddpm"])
    header["__metadata__"]["medddpm"] = json.dumps(inner | {"version": version})
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sigma", "-3"], "--sigma"),
        (["--set", "restore.stepz=3"], "restore.stepz"),
        (["--set", "nonsense"], "FIELD=VALUE"),
        (["--memory", "1MB"], "GB"),
        (["--memory", "lots"], "--memory"),
        (["--device", "gpu"], "--device"),
        (["--format", "dicom"], "DICOM"),
        (["--sigma", "nan"], "--sigma"),
        (["--set", "restor.steps=3"], "restor: unknown field"),
    ],
)
def test_bad_options(
    options: list[str], said: str, cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    done = cli("restore", noisy_nifti, tmp_path / "out", "--weights", tiny_weights, *options)
    check(done, 2, tmp_path, before)
    assert said in done.stderr


def test_interrupt_in_the_middle(
    cli: Cli, noisy_nifti: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = tree(tmp_path)
    for place in ("workflows.restored_files.write_sidecar", "workflows.restoring.Restorer.restore"):
        monkeypatch.setattr(f"medddpm.{place}", interrupt)
        done = cli("restore", noisy_nifti, tmp_path / "out", "--weights", tiny_weights)
        check(done, 130, tmp_path, before)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "ctrl-c"])
def test_a_signal_in_the_middle(
    end: signal.Signals, head: Any, tiny_weights: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A batch system or a person ends a job so; the process says so and leaves nothing."""
    clean = head((64, 64, 64))
    source = nifti(tmp_path / "scan.nii.gz", np.hypot(clean, rng.normal(0, 50, clean.shape)))
    before = tree(tmp_path)
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from medddpm.cli import main; sys.argv[0] = 'medddpm'; main()"
    )
    options = ("--mode", "ensemble", "--samples", "100000", "--weights", str(tiny_weights))
    process = subprocess.Popen(
        [sys.executable, "-c", code, "restore", str(source), str(tmp_path / "out"), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr:
        first = process.stderr.readline()
        process.send_signal(end)
        rest = process.stderr.read()
    assert process.wait(60) == 130, first + rest
    assert "interrupted" in rest
    assert tree(tmp_path) == before
