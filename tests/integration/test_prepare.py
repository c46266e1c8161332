"""`medddpm prepare` from end to end, and each way in which it may be stopped."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

Cli = Callable[..., Any]
PEOPLE = "participant_id\tsex\tage\n" + "".join(f"sub-{n:02d}\tF\t3{n}\n" for n in range(1, 7))


@pytest.fixture
def bids(tmp_path: Path, head: Any, save_nifti: Any, rng: np.random.Generator) -> Path:
    """Six subjects with a small T1w head each."""
    folder = tmp_path / "bids"
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "x", "License": "CC0"}')
    (folder / "participants.tsv").write_text(PEOPLE)
    for number in range(1, 7):
        place = folder / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz"
        place.parent.mkdir(parents=True)
        data = head((20, 24, 20)) * rng.uniform(0.8, 1.2, (20, 24, 20))
        save_nifti(place, data.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def public(out: Path) -> dict[str, bytes]:
    """Every file of a prepared folder but the private ones."""
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(out.rglob("*"))
        if p.is_file() and p.parent.name != "private"
    }


def write_csv(path: Path, *lines: Iterable[object]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def test_bids_becomes_a_prepared_folder_and_the_same_bytes_again(
    cli: Cli, bids: Path, tmp_path: Path
) -> None:
    (bids / "sub-07" / "anat").mkdir(parents=True)
    (bids / "sub-07" / "anat" / "sub-07_T1w.nii.gz").write_bytes(b"this is no scan")
    done = cli("prepare", bids, tmp_path / "a")
    assert done.exit_code == 0, done.stderr
    assert "is BIDS" in done.stderr
    assert "6 scans of 6 subjects" in done.stdout
    assert "consent: no table was given" in done.stdout
    made = rows(tmp_path / "a" / "manifest.csv")
    assert [r["scan"] for r in made] == [f"sub-{n:02d}_T1w" for n in range(1, 7)]
    assert {r["split"] for r in made} == {"train", "val", "test"}
    assert made[0]["sex"] == "F"
    assert made[0]["shape"] == "20x24x20"
    assert made[0]["orientation"] == "RAS"
    assert len(made[0]["checksum"]) == 64
    (left,) = rows(tmp_path / "a" / "ledger.csv")
    assert (left["scan"], left["code"]) == ("sub-07_T1w", "unreadable")
    assert (tmp_path / "a" / "quality" / "sheet-001.png").is_file()
    before = public(tmp_path / "a")
    assert cli("prepare", bids, tmp_path / "b").exit_code == 0
    assert public(tmp_path / "b") == before
    assert cli("prepare", bids, tmp_path / "a").exit_code == 0
    assert public(tmp_path / "a") == before


KILL = """
import os, signal, sys
import importlib
module, name, count = sys.argv[1:4]
home = importlib.import_module(module)
whole = getattr(home, name)
calls = []
def killed(*a, **k):
    calls.append(1)
    if len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*a, **k)
setattr(home, name, killed)
from medddpm.cli import main
sys.argv = ["medddpm", *sys.argv[4:]]
main()
"""


@pytest.mark.parametrize(
    "place",
    [
        ("medddpm.data.scan", "pack", 3),
        ("medddpm.data.cache", "_save", 4),
        ("medddpm.data.prepare", "write_manifest", 1),
        ("medddpm.data.prepare", "write_index", 1),
    ],
    ids=lambda place: place[1],
)
def test_a_process_killed_in_any_phase_goes_on(
    cli: Cli, bids: Path, tmp_path: Path, place: tuple[str, str, int]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert cli("prepare", bids, whole).exit_code == 0
    words = [str(w) for w in (*place, "prepare", bids, out)]
    killed = subprocess.run([sys.executable, "-c", KILL, *words], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "cache" / "index.json").exists()
    packed = {p: p.stat().st_mtime_ns for p in (out / "cache").glob("sub-*.npy")}
    finished = {p.stem for p in (out / "cache").glob("*.json")}
    assert cli("prepare", bids, out).exit_code == 0
    assert public(out) == public(whole)
    for path, when in packed.items():
        if path.name.split(".")[0] in finished:
            assert path.stat().st_mtime_ns == when, "packed twice"


def test_sigterm_is_clean(cli: Cli, bids: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = KILL.replace("signal.SIGKILL", "signal.SIGTERM")
    words = ["medddpm.data.scan", "pack", "3", "prepare", str(bids), str(out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert not [p for p in (out / "cache").iterdir() if p.name.startswith(".")]
    assert cli("prepare", bids, out).exit_code == 0


def test_a_full_disk_stops_the_run_and_a_rerun_goes_on(
    cli: Cli, bids: Path, tmp_path: Path
) -> None:
    """A file size limit stands in for a small disk: writing fails in the middle of a scan."""
    out, big = tmp_path / "out", bids / "sub-04" / "anat" / "sub-04_T1w.nii.gz"
    import nibabel as nib

    image: Any = nib.load(big)
    data = np.pad(image.get_fdata(), [(0, 60)] * 3, mode="reflect").astype(np.float32)
    nib.save(nib.nifti1.Nifti1Image(data, image.affine), big)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = subprocess.run(
        [sys.executable, "-m", "medddpm", "prepare", str(bids), str(out)],
        capture_output=True, text=True, preexec_fn=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    names = {p.name for p in (out / "cache").iterdir()}
    assert not [name for name in names if name.startswith((".", "sub-04"))]
    assert {"sub-01_T1w.json", "sub-03_T1w.npy"} <= names
    assert cli("prepare", bids, out).exit_code == 0
    assert len(rows(out / "manifest.csv")) == 6


def test_a_cache_of_another_version_is_refused(cli: Cli, bids: Path, tmp_path: Path) -> None:
    assert cli("prepare", bids, tmp_path / "out").exit_code == 0
    index = tmp_path / "out" / "cache" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"version": 1}))
    before = public(tmp_path / "out")
    done = cli("prepare", bids, tmp_path / "out")
    assert done.exit_code == 2
    assert "delete that folder" in done.stderr
    assert public(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: [shutil.rmtree(p) for p in b.glob("sub-*")], "is it empty"),
        (lambda b: (b / "participants.tsv").write_text(PEOPLE + "sub-01\tM\t31\n"), "sub-01 twice"),
    ],
)
def test_bad_bids_leaves_nothing(
    cli: Cli, bids: Path, tmp_path: Path, change: Any, said: str
) -> None:
    change(bids)
    done = cli("prepare", bids, tmp_path / "out")
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_who_did_not_consent_is_left_out_and_counted(cli: Cli, bids: Path, tmp_path: Path) -> None:
    table = write_csv(
        tmp_path / "consent.csv",
        ("subject", "state", "scope", "date"),
        *((f"sub-0{n}", "yes", "training", "2020-01-01") for n in (1, 2)),
        ("sub-03", "yes", "training; synthetic", "2020-01-01"),
        ("04", "no", "training", "2020-01-01"),
        ("05", "yes", "care", "2020-01-01"),
    )
    done = cli("prepare", bids, tmp_path / "out", "--consent", table)
    assert done.exit_code == 0, done.stderr
    assert "no-consent 3" in done.stdout
    made = rows(tmp_path / "out" / "manifest.csv")
    assert {r["subject"]: r["consent"] for r in made} == dict.fromkeys(
        ("sub-01", "sub-02", "sub-03"), "yes"
    )
    synthetic = {r["subject"]: r["synthetic"] for r in made}
    assert synthetic == {"sub-01": "no", "sub-02": "no", "sub-03": "yes"}
    counted = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert counted["synthetic"] == dict(Counter(r["synthetic"] for r in made))
    assert not list((tmp_path / "out" / "cache").glob("sub-04*"))
    # Consent that is taken back: the next run with the new table purges the scan.
    table.write_text(table.read_text().replace("sub-01,yes", "sub-01,withdrawn"))
    assert cli("prepare", bids, tmp_path / "out", "--consent", table).exit_code == 0
    assert not list((tmp_path / "out" / "cache").glob("sub-01*"))


def test_the_same_scan_under_two_ids_is_held_together(cli: Cli, bids: Path, tmp_path: Path) -> None:
    import nibabel as nib

    source = bids / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    image: Any = nib.load(source)
    flipped = np.ascontiguousarray(image.get_fdata()[::-1]).astype(np.float32)
    place = bids / "sub-09" / "anat" / "sub-09_T1w.nii.gz"
    place.parent.mkdir(parents=True)
    nib.save(nib.nifti1.Nifti1Image(flipped, image.affine), place)
    shutil.copy(place, place.with_name("sub-09_T2w.nii.gz"))
    other = nib.nifti1.Nifti1Image(flipped**1.1, image.affine)
    nib.save(other, place.with_name("sub-09_FLAIR.nii.gz"))
    assert cli("prepare", bids, tmp_path / "out").exit_code == 0
    left = rows(tmp_path / "out" / "ledger.csv")
    assert {(r["scan"], r["code"], r["twin"]) for r in left} == {
        ("sub-09_T1w", "duplicate", "sub-02_T1w"),
        ("sub-09_T2w", "duplicate", "sub-02_T1w"),
    }
    made = {r["scan"]: r for r in rows(tmp_path / "out" / "manifest.csv")}
    assert made["sub-02_T1w"]["flags"] == "duplicate"
    assert made["sub-09_FLAIR"]["split"] == made["sub-02_T1w"]["split"]


@pytest.fixture
def patients(tmp_path: Path, head: Any, dicom_series: Any) -> Path:
    """Two patients in a tree whose folders bear their names, one series damaged."""
    root = tmp_path / "export"
    for number, (name, shape) in enumerate(
        (("ALPHA^ANN", (20, 24, 16)), ("BETA^BOB", (22, 24, 16)))
    ):
        folder = dicom_series(root / name / "1", head(shape), number=number + 1)
        for path in folder.glob("*.dcm"):
            dataset = dcmread(path)
            dataset.PatientName, dataset.PatientID = name, f"MRN{number}77"
            dataset.InstitutionName = "Saint Elsewhere"
            dataset.save_as(path)
    broken = dicom_series(root / "BETA^BOB" / "2", head((20, 24, 16)), skip=(5,), number=3)
    for path in broken.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.PatientName, dataset.PatientID = "BETA^BOB", "MRN177"
        dataset.save_as(path)
    return root


def test_nothing_that_comes_out_of_dicom_names_a_patient(
    cli: Cli, patients: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dicomanonymizer", reason="needs the extra deidentify")
    out = tmp_path / "out"
    done = cli("prepare", patients, out, "--deidentify", tmp_path / "clean")
    assert done.exit_code == 0, done.stderr
    assert "is DICOM" in done.stderr
    assert "2 of 2 series identify" in done.stdout
    assert [r["code"] for r in rows(out / "ledger.csv")] == ["unreadable"]
    said = (done.stdout + done.stderr).encode()
    copies = [p for p in (tmp_path / "clean").rglob("*") if p.is_file()]
    assert len(copies) == 32
    everything = [said, *public(out).values(), *(p.read_bytes() for p in copies)]
    names = " ".join([*public(out), *map(str, (p.relative_to(tmp_path) for p in copies))])
    for secret in ("ALPHA", "ANN", "BETA", "BOB", "MRN077", "MRN177", "Elsewhere", "19700101",
                   "20200101"):  # fmt: skip
        assert not [content for content in everything if secret.encode() in content], secret
        assert secret not in names
    mapping = rows(out / "private" / "mapping.csv")
    assert {r["original"] for r in mapping} == {"MRN077", "MRN177"}
    assert (out / "private").stat().st_mode & 0o077 == 0
    again = cli("prepare", patients, tmp_path / "b", "--key", out / "private" / "key")
    assert again.exit_code == 0, again.stderr
    same = ("manifest.csv", "ledger.csv", "cache/index.json", "quality/sheet-001.png")
    assert all(public(out)[name] == public(tmp_path / "b")[name] for name in same)
    assert cli("prepare", out, "--withdraw", "MRN077").exit_code == 0
    assert {r["original"] for r in rows(out / "private" / "mapping.csv")} == {"MRN177"}
    assert "MRN077" not in (out / "ledger.csv").read_text()


def tiny(cli: Cli, stage: str, data: Path, run: Path) -> Any:
    return cli(
        *("train", stage, "--data", data, "--config", "tiny_cpu", "--out", run),
        *("--set", "train.device=cpu", "--set", f"{stage}.steps=2", "--set", "data.holdout=[]"),
    )


def test_training_takes_a_prepared_folder_and_a_withdrawal_finds_its_checkpoints(
    cli: Cli, bids: Path, tmp_path: Path
) -> None:
    out, run = tmp_path / "out", tmp_path / "runs" / "one"
    run.parent.mkdir()
    assert cli("prepare", bids, out).exit_code == 0
    done = tiny(cli, "autoencoder", out, run)
    assert done.exit_code == 0, done.stderr
    assert (run / "cache").resolve() == out / "cache", "the prepared cache is read in place"
    made = {r["subject"]: r["split"] for r in rows(out / "manifest.csv")}
    seen = json.loads((run / "autoencoder" / "run.json").read_text())["subjects"]
    assert set(seen) == {subject for subject, split in made.items() if split == "train"}
    victim = sorted(seen)[0]
    done = cli("prepare", out, "--withdraw", victim, "--runs", tmp_path / "runs")
    assert done.exit_code == 0, done.stderr
    assert "2 checkpoints" in done.stdout
    assert str(run / "model.safetensors") in done.stdout
    assert victim not in {r["subject"] for r in rows(out / "manifest.csv")}
    assert not list((out / "cache").glob(f"{victim}*"))
    assert [(r["subject"], r["code"]) for r in rows(out / "ledger.csv")] == [(victim, "withdrawn")]
    after = public(out)
    assert cli("prepare", bids, out).exit_code == 0
    assert public(out) == after, "a rerun does not bring the subject back"
    held_out = next(subject for subject, split in made.items() if split == "val")
    done = cli("prepare", out, "--withdraw", held_out, "--runs", tmp_path / "runs")
    assert "0 checkpoints" in done.stdout
    assert cli("prepare", out, "--withdraw", "nobody").exit_code == 2


def test_a_withdrawal_takes_the_same_pixels_under_another_id_along(
    cli: Cli, bids: Path, tmp_path: Path
) -> None:
    first = bids / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    for name in ("sub-08", "sub-09"):
        (bids / name / "anat").mkdir(parents=True)
        shutil.copy(first, bids / name / "anat" / f"{name}_T1w.nii.gz")
    out = tmp_path / "out"
    assert cli("prepare", bids, out).exit_code == 0
    assert cli("prepare", out, "--withdraw", "sub-08").exit_code == 0
    assert "sub-02" not in {r["subject"] for r in rows(out / "manifest.csv")}
    assert cli("prepare", bids, out).exit_code == 0
    assert not {"sub-02", "sub-08", "sub-09"} & {r["subject"] for r in rows(out / "manifest.csv")}


@pytest.mark.parametrize("place", ["write_manifest", "purge"])
def test_a_withdrawal_that_was_killed_is_finished_by_another(
    cli: Cli, bids: Path, tmp_path: Path, place: str
) -> None:
    out = tmp_path / "out"
    assert cli("prepare", bids, out).exit_code == 0
    shutil.copytree(out, tmp_path / "copy")
    assert cli("prepare", out, "--withdraw", "sub-03").exit_code == 0
    words = ["medddpm.data.withdraw", place, "1", "prepare", str(tmp_path / "copy")]
    killed = subprocess.run(
        [sys.executable, "-c", KILL, *words, "--withdraw", "sub-03"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert cli("prepare", tmp_path / "copy", "--withdraw", "sub-03").exit_code == 0
    assert public(tmp_path / "copy") == public(out)


def test_training_refuses_a_manifest_with_one_subject_on_two_sides(
    cli: Cli, bids: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert cli("prepare", bids, out).exit_code == 0
    text = (out / "manifest.csv").read_text()
    made = {r["split"]: r["subject"] for r in rows(out / "manifest.csv")}
    mixed = text.replace(f",{made['test']},", f",{made['train']},")
    (out / "manifest.csv").write_text(mixed)
    done = tiny(cli, "autoencoder", out, tmp_path / "run")
    assert done.exit_code == 2
    assert f"{made['train']} is in both halves" in done.stderr
    (out / "cache" / "index.json").unlink()
    done = tiny(cli, "autoencoder", out, tmp_path / "run")
    assert done.exit_code == 2
    assert "unfinished" in done.stderr


COPY = f"{sys.executable} -c 'import shutil, sys; shutil.copy(*sys.argv[1:])' {{in}} {{out}}"


@pytest.mark.parametrize(
    ("command", "codes", "flags"),
    [
        (COPY, [], "defaced"),
        ("false {in} {out}", ["deface-failed"], None),
        ("no-such-tool {in} {out}", ["deface-failed"], None),
    ],
)
def test_an_installed_tool_may_deface(
    cli: Cli, head: Any, save_nifti: Any, tmp_path: Path, command: str, codes: Any, flags: Any
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    save_nifti(folder / "head.nii.gz", head((40, 48, 44)), np.diag([5.5, 5.5, 5.5, 1.0]))
    table = write_csv(tmp_path / "t.csv", ("file", "subject"), ("head.nii.gz", "P1"))
    done = cli("prepare", folder, tmp_path / "out", "--table", table, "--deface", command)
    assert [r["code"] for r in rows(tmp_path / "out" / "ledger.csv")] == codes, done.stderr
    assert [r["flags"] for r in rows(tmp_path / "out" / "manifest.csv")] == (
        [flags] if flags else []
    )
    assert done.exit_code == (0 if flags else 6)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--split", "1,1,1"], 2, "--split"),
        (["--deface", "tool"], 2, "{in} and {out}"),
        (["--deidentify", "check"], 2, "for DICOM"),
        (["--consent", "none.csv"], 2, "cannot be read"),
        (["--key", "none"], 2, "no key"),
    ],
)
def test_bad_options(
    cli: Cli, bids: Path, tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    done = cli("prepare", bids, tmp_path / "out", *options)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_folders(cli: Cli, bids: Path, tmp_path: Path) -> None:
    assert "SOURCE OUT" in cli("prepare", bids).stderr
    assert "does not exist" in cli("prepare", tmp_path / "no", tmp_path / "out").stderr
    assert "inside the source" in cli("prepare", bids, bids / "out").stderr
    assert cli("prepare", bids, tmp_path / "out").exit_code == 0
    (tmp_path / "other").mkdir()
    shutil.copytree(bids, tmp_path / "other" / "bids")
    done = cli("prepare", tmp_path / "other" / "bids", tmp_path / "out")
    assert "another source" in done.stderr


def test_what_a_person_changed_in_the_manifest_stays(cli: Cli, bids: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("prepare", bids, out).exit_code == 0
    lines = (out / "manifest.csv").read_text().splitlines()
    lines[1] = lines[1].replace(",train,", ",,").replace(",val,", ",,").replace(",test,", ",,")
    lines[2] = lines[2].replace(",val,", ",test,").replace(",train,", ",test,")
    (out / "manifest.csv").write_text("\n".join(lines) + "\n")
    assert cli("prepare", bids, out).exit_code == 0
    made = rows(out / "manifest.csv")
    assert [r["split"] for r in made[:2]] == ["", "test"]


def test_a_scan_that_meets_a_bug_does_not_end_the_run(
    cli: Cli, bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medddpm.data import scan

    whole = scan.pack

    def sometimes(volume: Any, *args: Any, **more: Any) -> Any:
        if more["name"] == "sub-03_T1w":
            raise ZeroDivisionError
        return whole(volume, *args, **more)

    monkeypatch.setattr(scan, "pack", sometimes)
    assert cli("prepare", bids, tmp_path / "out").exit_code == 0
    (left,) = rows(tmp_path / "out" / "ledger.csv")
    assert left["scan"] == "sub-03_T1w"
    assert "ZeroDivisionError" in left["reason"]


def test_two_sites_with_clashing_ids_and_who_is_meant(
    cli: Cli, bids: Path, tmp_path: Path, head: Any, save_nifti: Any, rng: np.random.Generator
) -> None:
    both = tmp_path / "both"
    shutil.copytree(bids, both / "north")
    shutil.copytree(bids, both / "south")
    for path in (both / "south").rglob("*.nii.gz"):
        data = head((22, 24, 20)) * rng.uniform(0.8, 1.2, (22, 24, 20))
        save_nifti(path, data.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    out = tmp_path / "out"
    done = cli("prepare", both, out)
    assert done.exit_code == 0, done.stderr
    assert "6 subject names stand at more than one site" in done.stderr
    made = {r["subject"]: r["split"] for r in rows(out / "manifest.csv")}
    assert len(made) == 12
    assert all(made[f"north_sub-0{n}"] == made[f"south_sub-0{n}"] for n in range(1, 7))
    done = cli("prepare", out, "--withdraw", "sub-01")
    assert done.exit_code == 2
    assert "name one of north_sub-01, south_sub-01" in done.stderr
    assert cli("prepare", out, "--withdraw", "south_sub-01").exit_code == 0
    left = {r["subject"] for r in rows(out / "manifest.csv")}
    assert "north_sub-01" in left
    assert "south_sub-01" not in left


def test_time_is_not_in_the_bytes(cli: Cli, bids: Path, tmp_path: Path) -> None:
    assert cli("prepare", bids, tmp_path / "a").exit_code == 0
    for path in bids.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    time.sleep(0.01)
    assert cli("prepare", bids, tmp_path / "b").exit_code == 0
    assert public(tmp_path / "a") == public(tmp_path / "b")
