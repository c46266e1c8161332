"""Damaged headers of NIfTI and MGH: one clear error or a whole scan, and never anything else."""

from __future__ import annotations

import gzip
import io
import signal
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import GeometryWarning, MedddpmError, ValuesWarning
from medddpm.io import read_volume, scan_shape, write_volume
from medddpm.restoration.restorer import Restorer

# nibabel leaves an .mgh file open until nobody holds its image
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

SECONDS = 20
NUM_FILES = 1200
NUM_DEFAULT = 90
Maker = Callable[[np.random.Generator, bytes], bytes]

# NIfTI-1 (nifti1.h) and MGH (freesurfer's fileformat page): offset, struct format, odd values
NIFTI = [
    (0, "<i", [348, 540, 0, -1, 2**31 - 1]),
    (40, "<h", [0, 1, 2, 3, 4, 5, 7, 8, -1, 32767]),
    *[(42 + 2 * i, "<h", [0, 1, 2, -1, -8, 255, 32767, -32768]) for i in range(7)],
    (70, "<h", [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 2304, 77, -1]),
    (72, "<h", [0, 1, 7, 8, 16, 32, 64, -1]),
    *[(76 + 4 * i, "<f", [0, 1, -1, np.nan, np.inf, 1e30, 1e-30, 2.5]) for i in range(8)],
    (108, "<f", [0, 1, 352, 353.5, 368, -1, np.nan, np.inf, 1e30, 1e9]),
    (112, "<f", [0, 1, -1, np.nan, np.inf, 1e38, 1e-38]),
    (116, "<f", [0, 1, -1, np.nan, np.inf, -1e38, -1024]),
    (123, "<B", list(range(0, 256, 3))),
    (252, "<h", [0, 1, 2, 4, 5, 77, -1]),
    (254, "<h", [0, 1, 2, 4, 5, 77, -1]),
    *[(256 + 4 * i, "<f", [0, 1, -1, np.nan, np.inf, 1e30]) for i in range(6)],
    *[(280 + 4 * i, "<f", [0, 1, -1, np.nan, np.inf, 1e30]) for i in range(12)],
    (344, "<4s", [b"n+1\0", b"ni1\0", b"n+2\0", b"\0\0\0\0", b"abcd"]),
    (348, "<4s", [b"\1\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff"]),
    (352, "<i", [0, 8, 16, -16, 15, 2**31 - 1]),
]
MGH = [
    (0, ">i", [1, 0, 2, -1]),
    *[(4 + 4 * i, ">i", [0, 1, 2, -1, 255, 2**31 - 1, -(2**31)]) for i in range(4)],
    (20, ">i", [0, 1, 3, 4, 10, -1, 77]),
    (28, ">h", [0, 1, -1, 77]),
    *[(30 + 4 * i, ">f", [0, 1, -1, np.nan, np.inf, 1e30]) for i in range(15)],
]


def head(rng: np.random.Generator) -> NDArray[Any]:
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in (24, 20, 14)], indexing="ij")
    clean = np.where(sum(g**2 for g in grid) < 0.7, 600.0, 0.0)
    return np.rint(np.hypot(clean + rng.normal(0, 30, clean.shape), 30)).astype(np.int16)


def plain(suffix: str, folder: Path) -> bytes:
    """The bytes of a good file, not compressed."""
    data, affine = head(np.random.default_rng(4)), np.diag([1.0, 1.1, 2.0, 1.0])
    kinds = {".mgh": nib.freesurfer.MGHImage, ".nii2": nib.Nifti2Image}
    image = kinds.get(suffix, nib.Nifti1Image)(data, affine)
    path = folder / f"plain{suffix.replace('2', '')}"
    nib.save(image, path)
    return path.read_bytes()


def mutated(rng: np.random.Generator, content: bytes, fields: list[tuple[int, str, Any]]) -> bytes:
    """A few fields with odd values, or a few random bytes, or another length."""
    out = bytearray(content)
    kind = rng.integers(0, 10)
    if kind < 6:
        for _ in range(rng.integers(1, 4)):
            offset, form, values = fields[rng.integers(len(fields))]
            struct.pack_into(form, out, offset, values[rng.integers(len(values))])
    elif kind < 8:
        for _ in range(rng.integers(1, 9)):
            out[rng.integers(0, 360)] = rng.integers(0, 256)
    elif kind == 8:
        del out[rng.integers(0, len(out)) :]
    else:
        out += rng.bytes(rng.integers(1, 5000))
    return bytes(out)


def damaged_stream(rng: np.random.Generator, content: bytes) -> bytes:
    """A compressed file, perhaps cut, hurt, followed by other bytes, or of two members."""
    half = len(content) // 2
    kind = rng.integers(0, 8)
    if kind == 0:
        return gzip.compress(content[:half]) + gzip.compress(content[half:])
    out = bytearray(gzip.compress(content))
    if kind == 1:
        out[rng.integers(10, len(out))] ^= 1 << rng.integers(0, 8)
    elif kind == 2:
        del out[rng.integers(0, len(out)) :]
    elif kind == 3:
        out += rng.bytes(rng.integers(1, 40))
    return bytes(out)


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"it hung for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def check(path: Path, restorer: Restorer) -> str:
    """What became of a file: "read", "restored", or the class of its error."""
    before, state = tree(path.parent), "read"
    try:
        with limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore", (GeometryWarning, ValuesWarning))
            scan = read_volume(path)
            assert np.isfinite(scan.data).all()
            assert scan_shape([path])[0] == scan.data.shape[:3]
            back = read_volume(write_volume(scan, path.parent / "out.nii"))
            assert np.array_equal(back.data, scan.data)
            assert np.allclose(back.affine, scan.affine, rtol=1e-4, atol=1e-4)
            restored = restorer.restore(scan, tile=16, overlap=4, shifts=1)
            assert np.isfinite(restored.volume.data).all()
            state = "restored"
    except MedddpmError as error:
        state = state if "out.nii" in tree(path.parent) else type(error).__name__
    (path.parent / "out.nii").unlink(missing_ok=True)
    assert tree(path.parent) == before, "something was lost, or is left"
    return state


def fuzz(folder: Path, restorer: Restorer, numbers: range) -> set[str]:
    """Try the files of some numbers; a failure names its number."""
    with np.errstate(all="raise"):
        sources = {s: plain(s, folder) for s in (".nii", ".mgh", ".nii2")}
    for path in folder.iterdir():
        path.unlink()
    states = set()
    for number in numbers:
        rng = np.random.default_rng([14, number])
        suffix = [".nii", ".nii.gz", ".mgh", ".mgz", ".nii", ".nii2"][number % 6]
        base = {".nii.gz": ".nii", ".mgz": ".mgh"}.get(suffix, suffix)
        content = mutated(rng, sources[base], MGH if base == ".mgh" else NIFTI)
        if suffix.endswith("gz"):
            content = damaged_stream(rng, content)
        path = folder / f"{number}{suffix.replace('2', '')}"
        path.write_bytes(content)
        try:
            states.add(check(path, restorer))
        except BaseException as error:
            raise AssertionError(f"file {number} ({suffix}): {error!r}") from error
        path.unlink()
    return states


@pytest.fixture
def restorer(tiny_weights: Path) -> Restorer:
    return Restorer.from_pretrained(tiny_weights, device="cpu")


def test_damaged_headers(tmp_path: Path, restorer: Restorer) -> None:
    states = fuzz(tmp_path, restorer, range(NUM_DEFAULT))
    assert {"restored", "VolumeReadError", "GeometryError"} <= states


@pytest.mark.slow
def test_many_damaged_headers(tmp_path: Path, restorer: Restorer) -> None:
    fuzz(tmp_path, restorer, range(NUM_DEFAULT, NUM_FILES))


def test_the_good_files_are_good(tmp_path: Path, restorer: Restorer) -> None:
    """What is mutated is restored as it is, compressed or not."""
    for suffix in (".nii", ".mgh", ".nii2"):
        content = plain(suffix, tmp_path)
        (tmp_path / f"plain{suffix.replace('2', '')}").unlink()
        for gz in (False, True):
            name = f"a{suffix.replace('2', '')}{'.gz' if gz else ''}".replace("mgh.gz", "mgz")
            path = tmp_path / name
            stream = io.BytesIO(gzip.compress(content) if gz else content)
            path.write_bytes(stream.read())
            assert check(path, restorer) == "restored"
            path.unlink()
