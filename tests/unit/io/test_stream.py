"""What a file really holds, before it is read."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medddpm.errors import MedddpmError, VolumeReadError
from medddpm.io import read_volume
from medddpm.io import stream as stream_module
from medddpm.io.stream import content_length, total_memory

# nibabel leaves an .mgh file open until nobody holds its image
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

DATA = np.random.default_rng(0).integers(0, 9, 3_000_000, dtype=np.uint8).tobytes()
TRAILERS = {
    "text": b"\r\n-- end of attachment\r\n",
    "one byte": b"x",
    "zeros": bytes(512),
    "zeros and text": bytes(10) + b"text",
    "long": b"\xff" * 3_000_000,
}


@pytest.mark.parametrize("trailer", TRAILERS.values(), ids=TRAILERS)
def test_what_follows_a_complete_member(trailer: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(DATA, 1) + trailer)
    assert content_length(path) == len(DATA)


@pytest.mark.parametrize("padding", [b"", bytes(1), bytes(700)])
def test_members_follow_one_another(padding: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    parts = [DATA[:1000], b"", DATA[1000:]]
    path.write_bytes(padding.join(gzip.compress(part, 1) for part in parts) + b"end")
    assert content_length(path) == len(DATA)


def test_little_memory_for_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of output are small, whatever a block of input unpacks to."""
    monkeypatch.setattr(stream_module, "_CHUNK", 1000)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(5_000_000)))
    assert content_length(path) == 5_000_000


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("fault", ["cut", "checksum", "length", "header", "stream"])
def test_damage_is_an_error(fault: str, second: bool, tmp_path: Path) -> None:
    """Also in a second member: what begins one is no trailing text."""
    member = bytearray(gzip.compress(DATA[:20000], 1))
    if fault == "cut":
        del member[-3:]
    elif fault == "checksum":
        member[-8] ^= 1
    elif fault == "length":
        member[-4] ^= 1
    elif fault == "header":
        member[2] = 99  # an unknown method of compression
    else:
        member[len(member) // 2] ^= 16
    path = tmp_path / "a.gz"
    path.write_bytes((gzip.compress(b"first") if second else b"") + bytes(member))
    with pytest.raises((EOFError, zlib.error)):
        content_length(path)


def test_no_member_at_all(tmp_path: Path) -> None:
    for content in (b"", b"no gzip"):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises((EOFError, zlib.error)):
            content_length(tmp_path / "a.gz")


def scan(path: Path) -> Path:
    data = np.random.default_rng(1).integers(0, 900, (9, 8, 7)).astype(np.int16)
    is_mgh = path.suffix in (".mgh", ".mgz")
    nib.save((nib.freesurfer.MGHImage if is_mgh else nib.Nifti1Image)(data, np.eye(4)), path)
    return path


def with_dims(path: Path, dims: tuple[int, int, int]) -> Path:
    """The file, its header with other dimensions."""
    is_gz = path.suffix in (".gz", ".mgz")
    content = bytearray(gzip.decompress(path.read_bytes()) if is_gz else path.read_bytes())
    if path.suffix in (".mgh", ".mgz"):
        struct.pack_into(">3i", content, 4, *dims)
    else:
        struct.pack_into("<3h", content, 42, *dims)
    path.write_bytes(gzip.compress(content) if is_gz else bytes(content))
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgh", "a.mgz"])
@pytest.mark.parametrize("dims", [(3000, 3000, 3000), (9, 8, 8), (9, 8000, 7)])
def test_a_header_that_claims_too_much(
    name: str, dims: tuple[int, int, int], tmp_path: Path
) -> None:
    path = with_dims(scan(tmp_path / name), dims)
    with pytest.raises(VolumeReadError, match=r"claims .* x .* bytes, and there are .*cut short"):
        read_volume(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_largest_claim_of_a_header(name: str, tmp_path: Path) -> None:
    path = with_dims(scan(tmp_path / name), (32767, 32767, 32767))
    with pytest.raises(VolumeReadError, match="claims 32767 x 32767 x 32767 voxels"):
        read_volume(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgh", "a.mgz"])
@pytest.mark.parametrize("dims", [(-9, 8, 7), (0, 8, 7), (-9, -8, 7), (9, 8, -32768)])
def test_dimensions_below_one(name: str, dims: tuple[int, int, int], tmp_path: Path) -> None:
    path = with_dims(scan(tmp_path / name), dims)
    with pytest.raises(MedddpmError, match=str(path)):
        read_volume(path)


def test_larger_than_the_memory(tmp_path: Path) -> None:
    """A file of that length, with nothing in it: the header and the file agree."""
    path = with_dims(scan(tmp_path / "a.nii"), (32767, 32767, 1 + total_memory() // 2**32))
    with path.open("r+b") as file:
        file.truncate(352 + 2 * 32767**2 * (1 + total_memory() // 2**32))
    with pytest.raises(VolumeReadError, match="GB of memory, and this machine has"):
        read_volume(path)


@pytest.mark.parametrize("trailer", TRAILERS.values(), ids=TRAILERS)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz"])
def test_a_scan_with_trailing_bytes(name: str, trailer: bytes, tmp_path: Path) -> None:
    path = scan(tmp_path / name)
    before = read_volume(path).data
    path.write_bytes(path.read_bytes() + trailer)
    assert np.array_equal(read_volume(path).data, before)


def test_the_compressed_half_of_a_pair(tmp_path: Path) -> None:
    """Both files of a compressed pair are checked."""
    data = np.arange(504, dtype=np.int16).reshape(9, 8, 7)
    nib.save(nib.Nifti1Pair(data, np.eye(4)), tmp_path / "a.img.gz")
    assert np.array_equal(read_volume(tmp_path / "a.img.gz").data, data)
    for name in ("a.hdr.gz", "a.img.gz"):
        good = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(good[:-2])
        with pytest.raises(VolumeReadError):
            read_volume(tmp_path / "a.hdr.gz")
        (tmp_path / name).write_bytes(good)


def test_a_pair_without_its_voxels(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.ones((3, 3, 3), np.int16), np.eye(4)), tmp_path / "a.img")
    (tmp_path / "a.img").unlink()
    with pytest.raises(VolumeReadError, match=r"a\.hdr"):
        read_volume(tmp_path / "a.hdr")


@pytest.mark.parametrize("code", [1, 2, 129, 130, 192, 255, 64, 7])
def test_any_unit_code(code: int, tmp_path: Path) -> None:
    """A time code that does not exist is no error; metres that cannot be meant are."""
    path = scan(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[123] = code
    path.write_bytes(bytes(content))
    try:
        volume: Any = read_volume(path)
    except MedddpmError as error:
        assert code & 7 in (1, 3)
        assert "the unit me" in str(error)  # noqa: PT017
        return
    assert volume.spacing == (1, 1, 1)
