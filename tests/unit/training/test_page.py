"""The page of a run folder, from logs and previews made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from medddpm.training.page import write_training_page
from medddpm.training.validation import write_preview


def a_run(folder: Path) -> Path:
    stage = folder / "diffusion"
    (stage / "previews").mkdir(parents=True)
    rows = [{"step": s, "loss": 1 / s, "lr": 1e-4, "samples_a_second": 3.0} for s in range(1, 901)]
    rows += [
        {
            "step": s,
            "psnr_0.05": 30 + s / 450,
            "psnr_noisy_0.05": 26.0,
            "psnr_0.09": 27.0,
            "raw_psnr_0.05": 29.0,
        }
        for s in (450, 900)
    ]
    lines = [json.dumps(row) for row in rows]
    (stage / "log.jsonl").write_text("\n".join([*lines, '{"step": 901, "lo']))
    for step in (450, 900):
        image = torch.full((5, 1, 8, 8, 8), step / 1000)
        path = stage / "previews" / f"step-{step:06d}.png"
        write_preview(path, {"noisy": image, "<b>restored": image, "truth": image})
    return folder


def test_curves_by_noise_level_and_previews_with_labels(tmp_path: Path) -> None:
    page = write_training_page(a_run(tmp_path / "run")).read_text(encoding="utf-8")
    for text in (
        "Validation PSNR",
        "restored, noise 0.05",
        "noisy, noise 0.05",
        "Throughput",
        "0.05, not averaged",
    ):
        assert text in page
    assert "Stage diffusion, step 900" in page
    assert page.count("data:image/png;base64,") == 2  # the first and the last
    assert "columns: noisy, &lt;b&gt;restored, truth" in page
    loss = re.search(r"<svg [^>]*Training loss.*?</svg>", page)
    assert loss is not None
    assert max(len(d.split("L")) for d in re.findall(r' d="(.*?)"', loss[0])) <= 400
    assert "<script" not in page


def test_prior_shows_what_it_finds_again_and_draws_as_they_get_better(tmp_path: Path) -> None:
    stage = tmp_path / "run" / "prior"
    (stage / "previews").mkdir(parents=True)
    steps = range(100, 900, 100)
    rows = [{"step": s, "explained_0.3": s / 900, "explained_0.8": 0.1} for s in steps]
    (stage / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for step in steps:
        path = stage / "previews" / f"step-{step:06d}.png"
        write_preview(path, {"drawn": torch.zeros(1, 1, 8, 8, 8)})
    page = write_training_page(tmp_path / "run").read_text(encoding="utf-8")
    assert "Found again of held-out heads" in page
    assert "noise angle 0.3" in page
    assert page.count("data:image/png;base64,") == 4
    for step in (100, 800):
        assert f"at step {step};" in page


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    first = write_training_page(run).read_bytes()
    assert write_training_page(run).read_bytes() == first


def test_a_run_without_a_log_has_an_empty_page(tmp_path: Path) -> None:
    page = write_training_page(tmp_path).read_text(encoding="utf-8")
    assert "<svg" not in page
    assert "Stage" not in page
