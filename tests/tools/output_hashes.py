"""Hashes of what the commands write for a few small inputs, to show that a change changed no byte.

    python tests/tools/output_hashes.py > before          # then change the code
    python tests/tools/output_hashes.py --check before    # says which outputs differ

Both on one machine, for the last bits belong to it. Clocks stand still and no version is told;
what a run names at random, or measures of its process, is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import nibabel as nib
import numpy as np
from typer.testing import CliRunner

from medddpm.benchmark import memory_meter
from medddpm.cli import app
from medddpm.io import provenance
from medddpm.share import share_dir

PLACE = Path(tempfile.gettempdir(), "output-hashes")
"""Of one name, which some outputs hold; what was written stays in it."""
COMMANDS = """
simulate a.nii.gz noisy.nii.gz --sigma 0.06
simulate a.nii.gz white.nii.gz --sigma 0.06 --noise white
estimate-noise noisy.nii.gz --json --map map.nii.gz --picture noise.png
restore noisy.nii.gz mean/ --report
restore white.nii.gz sample/ --mode sample --steps 2 --dtype int16
restore noisy.nii.gz ensemble/ --mode ensemble --samples 2 --steps 1 --report
restore white.nii.gz told/ --noise-map map.nii.gz --noise gaussian
restore real.nii.gz complex/ --imaginary imaginary.nii.gz --report
restore real.nii.gz draws/ --imaginary imaginary.nii.gz --mode ensemble --samples 2 --steps 1
restore four.nii.gz frames/
restore repeats several/ --dtype input
restore real.nii.gz refused/ --imaginary imaginary.nii.gz --noise rician
restore real.nii.gz refused/ --imaginary imaginary.nii.gz --set restore.noise=ncchi
restore real.nii.gz refused/ --imaginary imaginary.nii.gz --format dicom
restore real.nii.gz refused/ --imaginary imaginary.nii.gz --sigma 3 --noise-map map.nii.gz
restore scans refused/ --imaginary imaginary.nii.gz
convert noisy.nii.gz dicom/ --format dicom
restore dicom dicom_out/ --format dicom
evaluate a.nii.gz mean/noisy_desc-denoised.nii.gz --noisy noisy.nii.gz --json
report mean --out page --source noisy.nii.gz --reference a.nii.gz
info default --json
info noisy.nii.gz --json
benchmark scans --out benchmark --sigma 0.05 --noise acquired --noise white --repeats repeats
repeats repeats --out repeated --method identity --method mean
lesions scans --out planted --sigma 0.1 --limit 1 --count 2 --diameter 4 --method mean
calibrate scans --out fitted --include sub-0[12]* --samples 2 --steps 1 --sigma 0.1 --test a.nii.gz
calibrate-guard scans --out guarded --include sub-0[12]* --sigma 0.05
prepare bids prepared --key key --split 0.4,0.3,0.3
data-report prepared --out data.html
simulate-raw a.nii.gz raw.h5 --sigma 0.03 --coils 4
undersample raw.h5 under.h5 --R 2
reconstruct under.h5 ours/ --phase --set reconstruct.plug.steps=1
reconstruct under.h5 cg/ --method cg-sense --held-out 0.1 --g-factor 2
reconstruct under.h5 samples/ --mode ensemble --samples 2 --set reconstruct.plug.steps=1
benchmark-raw a.nii.gz --out raws --mask vd2d --R 2 --method cg-sense --planes 4 --sigma 0.03
train autoencoder --data scans --out run --config tiny_cpu --set autoencoder.steps=2
train diffusion --data scans --out run --config tiny_cpu --set diffusion.steps=2
train fidelity --data scans --out run --config tiny_cpu --set fidelity.steps=2
sweep tiny_cpu --data scans --out swept --from run --stage fidelity --set fidelity.steps=1,2
memorisation run --samples 2 --alpha 0.4 --out copies
cohort scans cohort --workers 1 --report
"""


class Moment(float):
    """A time that lies one second from every other."""

    def __sub__(self, other: object) -> float:
        return 1.0


def main() -> int:
    """Print `name sha256` lines, or what differs from those of a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", type=Path, help="lines of an earlier run")
    parser.add_argument("--only", default="", help="pattern of the commands to run")
    given = parser.parse_args()
    before = dict(map(str.split, given.check.read_text().splitlines())) if given.check else {}
    provenance.now, provenance.versions = lambda: "2000-01-01T00:00:00Z", lambda: {"medddpm": "0"}
    memory_meter._high_water_gb = lambda: 0.0
    resource.getrusage = lambda who: SimpleNamespace(ru_maxrss=0)
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    os.chdir(PLACE)
    make_inputs()
    commands = [line for line in COMMANDS.split("\n") if line and re.search(given.only, line)]
    found = {}
    for name, content in outputs(commands):
        found[name] = hashlib.sha256(content).hexdigest()
        if not given.check:
            print(name, found[name], flush=True)
    if not given.check:
        return 0
    names = found if given.only else {**before, **found}
    differ = [name for name in names if before.get(name) != found.get(name)]
    print(f"{len(names) - len(differ)} are equal, {len(differ)} differ", *differ, sep="\n")
    return 1 if differ else 0


def outputs(commands: list[str]) -> Iterator[tuple[str, bytes]]:
    """Run each command: what it says, and each file that is new after it."""
    known = set(files())
    for number, line in enumerate(commands, start=1):
        began = time.perf_counter()
        said = run(line)
        seconds = time.perf_counter() - began
        print(f"{number}/{len(commands)} {seconds:.0f} s {line}", file=sys.stderr)
        yield line.replace(" ", "_"), said.encode()
        for path in files():
            if path not in known:
                yield f"{path}", steady(path)
        known.update(files())


def run(line: str) -> str:
    """What a command says, with its exit code; what it says of progress counts if it failed."""
    clock = time.monotonic if line.startswith("cohort") else Moment  # dask needs a clock
    with patch.multiple(time, monotonic=clock, perf_counter=Moment):
        result = CliRunner().invoke(app, line.split())
    if result.exit_code not in (0, 6) and "refused" not in line:
        print(result.output, file=sys.stderr)
    told = result.output if "refused" in line else result.stdout
    return f"{result.exit_code}\n{'' if line.startswith('cohort') else told}"


def files() -> list[Path]:
    """All outputs so far; logs, locks and records of processes are none."""
    found = (path for path in sorted(Path().rglob("*")) if path.is_file())
    return [path for path in found if not re.search(r"\block\b|events\.out|^cohort/\.", f"{path}")]


def steady(path: Path) -> bytes:
    """The content of a file; of a cohort, whose workers have clocks, that of the scans alone."""
    return b"" if path.parts[0] == "cohort" and path.suffix != ".gz" else path.read_bytes()


def make_inputs() -> None:
    """Crops of the shipped example: clean scans, repeats, both parts of a scan, four frames."""
    rng = np.random.default_rng(17)
    clean = nib.load(share_dir() / "example" / "sub-example_T1w_clean.nii.gz")
    boxes = [clean.slicer[x : x + 40, y : y + 40, 20:58] for x, y in ((28, 36), (20, 40), (34, 30))]
    image = boxes[0].get_fdata()

    def save(name: str, data: np.ndarray, like: nib.Nifti1Image = boxes[0]) -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data.astype(np.float32), like.affine, like.header), name)

    def noise() -> np.ndarray:
        return rng.normal(0, 0.05 * image.max(), image.shape)

    save("a.nii.gz", image)
    for number, box in enumerate(boxes, start=1):
        save(f"scans/sub-0{number}_T1w.nii.gz", box.get_fdata(), box)
        save(f"bids/sub-0{number}/anat/sub-0{number}_T1w.nii.gz", box.get_fdata(), box)
    Path("bids/dataset_description.json").write_text('{"Name": "crops", "License": "CC0"}')
    Path("key").write_text("17" * 32)
    noisy = [np.hypot(image + noise(), noise()) for _ in range(3)]
    for number, repeat in enumerate(noisy, start=1):
        save(f"repeats/sub-01_run-{number}_T1w.nii.gz", repeat)
    save("four.nii.gz", np.stack([noisy[0], 0 * image, noisy[1]], axis=-1))
    save("real.nii.gz", 0.8 * image + noise())
    save("imaginary.nii.gz", 0.6 * image + noise())


if __name__ == "__main__":
    sys.exit(main())
