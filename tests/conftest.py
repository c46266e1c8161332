"""Phantoms made in code, a tiny model, a DICOM series: nothing here needs external data."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.volume import Geometry, Volume

mpl.use("Agg")
# The same examples each time; no deadline, as a busy machine is slow.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")
pytest_plugins = [
    "support.destination",
    "support.enhanced",
    "support.node_process",
    "support.orthanc",
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same, whatever ran before it; torch, if nobody has imported it, does."""
    random.seed(20)
    np.random.seed(20)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(20)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture
def oblique_affine() -> NDArray[np.float64]:
    """Voxels of 1.0 x 1.1 x 1.3 mm, turned by 0.3 rad about x and 0.2 rad about z."""
    cx, sx, cz, sz = np.cos(0.3), np.sin(0.3), np.cos(0.2), np.sin(0.2)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([1.0, 1.1, 1.3])
    affine[:3, 3] = [-20.5, 11.25, 3.0]
    return affine


def _head(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Nested ellipsoids with a smooth shading and fine stripes, in air; brightest about 1000."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x / 0.7) ** 2 + (y / 0.75) ** 2 + (z / 0.8) ** 2)
    head = np.select([radius < 0.45, radius < 0.75, radius < 1.0], [950.0, 700.0, 350.0], 0.0)
    head *= 1 + 0.1 * x + 0.05 * np.sin(12 * y)
    return head.astype(np.float32)


@pytest.fixture(scope="session")
def head() -> Callable[..., NDArray[np.float32]]:
    """Makes a clean head of any shape: head((24, 26, 20))."""
    return _head


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    """Of the phantom; a module whose law needs more voxels has a fixture of its own."""
    return (32, 30, 26)


@pytest.fixture
def phantom(phantom_shape: tuple[int, int, int], oblique_affine: NDArray[np.float64]) -> Volume:
    """A clean oblique head."""
    return Volume(_head(phantom_shape), Geometry(phantom_shape, oblique_affine), case_id="phantom")


@pytest.fixture
def noisy_phantom(phantom: Volume, rng: np.random.Generator) -> Volume:
    """The same head with Rician noise, sigma 50 (about 0.05 of its scale)."""
    real, imaginary = rng.normal(0, 50, (2, *phantom.data.shape))
    return phantom.with_data(np.hypot(phantom.data + real, imaginary))


def _save_nifti(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    image = nib.nifti1.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


@pytest.fixture(scope="session")
def save_nifti() -> Callable[[Path, NDArray[Any], NDArray[np.float64]], Path]:
    """Writes an array as NIfTI with both forms set: save_nifti(path, data, affine)."""
    return _save_nifti


@pytest.fixture
def noisy_nifti(tmp_path: Path, noisy_phantom: Volume) -> Path:
    """The noisy head as a NIfTI file."""
    return _save_nifti(tmp_path / "noisy.nii.gz", noisy_phantom.data, noisy_phantom.affine)


@pytest.fixture
def clean_nifti(tmp_path: Path, phantom: Volume) -> Path:
    """The clean head as a NIfTI file."""
    return _save_nifti(tmp_path / "clean.nii.gz", phantom.data, phantom.affine)


def _tiny_model(seed: int) -> Any:
    """A model of a few thousand weights, none of them zero, with plausible latent statistics."""
    import torch

    from medddpm.model.model import Model
    from medddpm.model.spec import AutoencoderSpec, DiffusionSpec, FidelitySpec, ModelSpec

    torch.manual_seed(seed)
    spec = ModelSpec(
        AutoencoderSpec(
            latent_channels=4,
            encoder_channels=8,
            decoder_channels=8,
            encoder_blocks=1,
            decoder_blocks=1,
        ),
        DiffusionSpec(channels=(8, 8, 8), num_blocks=1, embedding_width=16),
        FidelitySpec(channels=(8, 8, 8), num_blocks=1, embedding_width=16),
    )
    model = Model(spec, {"name": "tiny", "data": "none: random weights for tests"})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a tiny random model: runs in a blink, restores nothing."""
    from medddpm.model.model import save_model

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(path, _tiny_model(seed=0))
    return path


@pytest.fixture(scope="session")
def dicom_series() -> Callable[..., Path]:
    """Writes a classic MR series of synthetic pixels: dicom_series(folder, data)."""
    return _write_series


def _write_series(
    folder: Path,
    data: NDArray[Any],
    *,
    modality: str = "MR",
    number: int = 1,
    study_uid: str | None = None,
    skip: tuple[int, ...] = (),
) -> Path:
    """One file a slice; `data` is (columns, rows, slices), spacing 1 x 1.5 x 3 mm, oblique.

    Args:
        folder: Made if missing.
        data: Non-negative; rounded to 12 bits.
        modality: "MR" or "CT".
        number: Series number; each call makes a new series.
        study_uid: Study of the series; new if not given.
        skip: Slices that are left out, for broken series.
    """
    from pydicom.uid import generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    uids = {
        "study": study_uid or generate_uid(),
        "series": generate_uid(),
        "frame": generate_uid(),
    }
    for index in range(data.shape[2]):
        if index not in skip:
            dataset = _slice_dataset(data[:, :, index], index, modality, number, uids)
            name = f"{number:02d}-{(7 * index) % data.shape[2]:03d}-{index}.dcm"
            dataset.save_as(folder / name, enforce_file_format=True)
    return folder


def _slice_dataset(
    image: NDArray[Any], index: int, modality: str, number: int, uids: dict[str, str]
) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

    row, column = np.array([0.96, 0.28, 0.0]), np.array([-0.28, 0.96, 0.0])
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = uids["study"]
    dataset.SeriesInstanceUID = uids["series"]
    dataset.FrameOfReferenceUID = uids["frame"]
    dataset.Modality = modality
    dataset.PatientName, dataset.PatientID = "Private^Person", "P-0001"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "120000", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    dataset.Manufacturer, dataset.SeriesDescription = "phantom", "T1w"
    dataset.SeriesNumber, dataset.InstanceNumber = number, index + 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.PositionReferenceIndicator, dataset.PatientPosition = "", "HFS"
    if modality == "MR":
        dataset.ScanningSequence, dataset.SequenceVariant = "GR", "SP"
        dataset.ScanOptions, dataset.MRAcquisitionType = "", "3D"
        dataset.EchoTime, dataset.RepetitionTime, dataset.EchoTrainLength = 3.0, 10.0, 1
    dataset.ImageOrientationPatient = [*row, *column]
    dataset.ImagePositionPatient = [-30.0, -40.0, 3.0 * index - 25.0]
    dataset.PixelSpacing, dataset.SliceThickness = [1.5, 1.0], 3.0
    dataset.SpacingBetweenSlices = 3.0
    pixels = np.rint(np.clip(image.T, 0, 4095)).astype(np.uint16)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    if modality == "CT":
        dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.PixelData = pixels.tobytes()
    return dataset


@dataclass(frozen=True)
class CliResult:
    """What a command left: its exit code and its two streams."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def cli() -> Callable[..., CliResult]:
    """Runs the command line in this process: cli("restore", path, out, "--steps", 2)."""
    from typer.testing import CliRunner

    from medddpm.cli import app

    def run(*arguments: object) -> CliResult:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        return CliResult(result.exit_code, result.stdout, result.stderr)

    return run


class Workplace:
    """A folder with scans, weights and a spy, and the command that restores them."""

    def __init__(self, folder: Path, weights: Path, num_scans: int) -> None:
        self.folder, self.weights, self.num_scans = folder, weights, num_scans
        self.out = folder / "out"
        self.spy = Path(__file__).with_name("cohort_spy.py")

    def environment(self, **spy: object) -> dict[str, str]:
        """What the spy in each worker is told."""
        told = {f"SPY_{name.upper()}": str(value) for name, value in spy.items()}
        told["SPY_FOLDER"] = str(self.folder)
        return told | {"DASK_DISTRIBUTED__WORKER__PRELOAD": f"['{self.spy}']"}

    def command(self, *options: object) -> list[str]:
        words = [self.folder / "in", self.out, "--weights", self.weights, *options]
        return [sys.executable, "-m", "medddpm", "cohort", *map(str, words)]

    def start(self, *options: object, **spy: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*options),
            env=os.environ | self.environment(**spy),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: object, seconds: float = 400, **spy: object) -> tuple[int, str]:
        return self.finish(self.start(*options, **spy), seconds)

    def finish(self, process: subprocess.Popen[str], seconds: float = 400) -> tuple[int, str]:
        """Its exit code and what it said; it never outlives the test."""
        try:
            said = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said = process.communicate()[1] + "\nit hung"
        return process.returncode, said

    def wait_for_records(self, count: int = 1) -> None:
        deadline = time.monotonic() + 300
        while len(self.saved()) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(self.saved()) >= count

    def saved(self) -> list[str]:
        log = self.folder / "saved.log"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    def check_whole(self) -> None:
        """Every scan restored once, with its report; nothing else is left."""
        names = [f"s{number:03d}" for number in range(self.num_scans)]
        rows = list(csv.DictReader((self.out / "cohort.csv").read_text().splitlines()))
        assert [row["scan"] for row in rows] == names
        assert Counter(line for line in self.saved()) == Counter(f"{n} restored" for n in names)
        found = sorted(p.name for p in self.out.iterdir() if not p.name.startswith("cohort."))
        wanted = [f"{n}_desc-denoised{s}" for n in names for s in (".json", ".nii.gz")]
        assert found == [".medddpm", *wanted]
        self.check_clean()

    def check_clean(self) -> None:
        assert not list(self.out.rglob(".medddpm-*")), "a half-written output is left"
        assert not list((self.out / ".medddpm" / "claims").glob("*")), "a claim is left"


@pytest.fixture
def workplace(
    tmp_path: Path, head: Any, save_nifti: Any, tiny_weights: Path, rng: np.random.Generator
) -> Callable[[int], Workplace]:
    def make(num_scans: int) -> Workplace:
        (tmp_path / "in").mkdir()
        clean = head((36, 36, 32))
        for number in range(num_scans):
            noisy = np.hypot(*(rng.normal(0, 50, (2, *clean.shape)) + np.stack([clean, 0 * clean])))
            path = tmp_path / "in" / f"s{number:03d}.nii.gz"
            save_nifti(path, noisy.astype(np.float32), np.diag([1, 1, 1.5, 1.0]))
        return Workplace(tmp_path, tiny_weights, num_scans)

    return make


@pytest.fixture
def two_heads(tmp_path: Path, head: Any, save_nifti: Any, oblique_affine: Any) -> Path:
    """A folder with the scans of two subjects."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, shape in enumerate([(32, 30, 28), (28, 32, 30)]):
        save_nifti(folder / f"sub-{number}_T1w.nii.gz", head(shape), oblique_affine)
    return folder
