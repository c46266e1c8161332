"""Distillation of a prior: its file, its draws, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unit.generation.conftest import SETTINGS

from medddpm.config import load_config
from medddpm.errors import ConfigError
from medddpm.generation.drawing import Artist, DrawOptions
from medddpm.generation.prior_file import load_prior
from medddpm.restoration.restorer import Restorer
from medddpm.workflows import train

CONFIG = load_config(None, [*SETTINGS, "distil.steps=2", "distil.batch=2", "distil.intervals=4"])


@pytest.fixture(scope="module")
def distilled(
    heads_folder: Path,
    prior_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The file of a prior that was distilled for two steps."""
    out = tmp_path_factory.mktemp("distilled")
    teacher = prior_run / "prior.safetensors"
    return train("distil", data=heads_folder, out=out, config=CONFIG, prior=teacher)


def test_the_student_keeps_what_tells_copies_and_names_its_teacher(
    prior_run: Path, distilled: Path
) -> None:
    teacher, student = load_prior(prior_run / "prior.safetensors"), load_prior(distilled)
    assert torch.equal(student.memory.rows, teacher.memory.rows)
    assert student.card.threshold == teacher.card.threshold
    assert teacher.card.distilled is None
    card = student.card.distilled
    assert card is not None
    assert card.steps == {"distil": 2, "distil-detail": 2}
    assert (card.sampler, len(card.teacher)) == ("consistency", 64)
    assert all(-1 < closed < 1 for closed in card.closed.values())
    weights = zip(teacher.prior.parameters(), student.prior.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in weights)
    for name in ("coarse.mean", "coarse.unit", "fine.spread"):
        assert torch.equal(teacher.prior.get_buffer(name), student.prior.get_buffer(name))


def test_it_is_drawn_from_by_its_own_sampler(
    prior_run: Path, distilled: Path, tiny_weights: Path
) -> None:
    """Every step has wholly new noise: the sampler of the teacher keeps a part of what there is."""
    restorer = Restorer.from_pretrained(tiny_weights)
    student = load_prior(distilled)
    once, again = (Artist(student, restorer, DrawOptions(steps=3)).draw(0, "a") for _ in range(2))
    assert (once.volume.data == again.volume.data).all()
    card = student.card.model_copy(update={"distilled": None})
    object.__setattr__(student, "card", card)
    other = Artist(student, restorer, DrawOptions(steps=3)).draw(0, "a")
    assert (once.volume.data != other.volume.data).any()


def test_what_cannot_be_distilled_is_said(
    heads_folder: Path, prior_run: Path, distilled: Path, tmp_path: Path
) -> None:
    teacher = prior_run / "prior.safetensors"
    with pytest.raises(ConfigError, match="distilled already"):
        train("distil", data=heads_folder, out=tmp_path / "a", config=CONFIG,
              prior=distilled)  # fmt: skip
    with pytest.raises(ConfigError, match="the teacher itself"):
        train("distil", data=heads_folder, out=prior_run, config=CONFIG,
              prior=teacher)  # fmt: skip
    more = load_config(None, [*SETTINGS, "data.holdout=[sub-06*]"])
    with pytest.raises(ConfigError, match="did not learn sub-05_T1w"):
        train("distil", data=heads_folder, out=tmp_path / "b", config=more,
              prior=teacher)  # fmt: skip
    with pytest.raises(ConfigError, match="leave out --from"):
        train("distil", data=heads_folder, out=tmp_path / "c", config=CONFIG, start="default",
              prior=teacher)  # fmt: skip
    with pytest.raises(ConfigError, match="leave it out of fidelity"):
        train("fidelity", data=heads_folder, out=tmp_path / "d", config=CONFIG, prior=teacher)
