from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from medddpm.config import Config, config_path, dump_config, load_config
from medddpm.errors import ConfigError, OptionWarning
from medddpm.share import share_dir

SHIPPED = sorted((share_dir() / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_config_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(copy) == config
    assert load_config(path.stem) == config


def test_defaults_survive_a_round_trip(tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(Config()))
    assert load_config(copy) == Config()


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().schema_version = 2  # type: ignore[assignment]


def test_overrides_apply_in_order_and_are_coerced() -> None:
    config = load_config(None, ["restore.tile=64", "restore.tile=32", "train.clip=1e-1"])
    assert config.restore.tile == 32
    assert config.train.clip == 0.1


def test_yaml_reads_1e_4_as_text_but_the_config_as_a_number(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("autoencoder:\n  learning_rate: 1e-4\n")
    assert load_config(path).autoencoder.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("restore.stepz=3", "restore.stepz: unknown field; did you mean steps"),
        ("stepz=3", "stepz: unknown field"),
        ("diffusion.schedule.kindd=cosine", "diffusion.schedule.kindd: unknown field"),
        ("restore.steps=many", "restore.steps: "),
        ("train.seed.deep=1", "train.seed: "),
        ("restore.steps", "FIELD=VALUE"),
        ("=3", "FIELD=VALUE"),
        ("restore.steps=[", "not readable as YAML"),
        ("schema_version=7", "schema_version: "),
    ],
)
def test_a_wrong_override_names_the_field(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("tiny_cpu", [override])
    assert said in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for text in ("a: [", "- a list", "just text"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"c\.yaml"):
            load_config(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(path)
    path.write_text("")
    assert load_config(path) == Config()


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="tiny_cpu"):
        config_path("huge")


def test_options_that_do_nothing_are_said_only_if_they_were_set(tmp_path: Path) -> None:
    with pytest.warns(OptionWarning, match="restore.sampler does nothing in mode mean"):
        load_config(None, ["restore.sampler=ddim"])
    load_config(None, ["restore.sampler=heun", "restore.mode=sample"])
    path = tmp_path / "c.yaml"
    path.write_text(dump_config(load_config(None)))  # every option, none of them set by anyone
    load_config(path)
    path.write_text("restore: {samples: 2}")
    with pytest.warns(OptionWarning, match="restore.samples does nothing in mode mean"):
        load_config(path)


def test_on_and_off_are_words_where_they_are_choices() -> None:
    config = load_config("tiny_cpu", ["train.bf16=on", "restore.noise_map=off"])
    assert config.train.bf16 == "on"
    assert config.restore.noise_map == "off"
    assert load_config("tiny_cpu", ["train.bf16=off"]).train.bf16 == "off"
