"""The file of a node, titles and destinations."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from medddpm.errors import ConfigError
from medddpm.node.options import NodeOptions, Peer, check_aet, load_options, parse_peer


def test_a_file_sets_rules_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("rules: {description: T1, contrast: [T1w]}\nquiet_s: 5\n")
    options = load_options(path)
    assert options.rules.contrast == ("T1w",)
    assert options.rules.modality == ("MR",)
    assert options.quiet_s == 5
    assert load_options(None) == NodeOptions()


def test_the_page_shows_the_defaults(tmp_path: Path) -> None:
    page = Path(__file__).parents[3].joinpath("docs", "node.md").read_text(encoding="utf-8")
    text = page.split("```yaml")[1].split("```")[0]
    path = tmp_path / "node.yaml"
    path.write_text(text)
    shown = load_options(path)
    assert shown.tls is not None
    assert replace(shown, tls=None) == NodeOptions()
    assert {field.name for field in fields(NodeOptions)} == set(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text", ["quiet: 5", "rules: {description: '['}", "quiet_s: soon", "- 1", "{", "tls: {cert: a}"]
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"node\.yaml"):
        load_options(path)


def test_destinations() -> None:
    assert parse_peer("MY PACS@pacs.example.org:104") == Peer("MY PACS", "pacs.example.org", 104)
    assert parse_peer("PACS@[::1]:104").host == "::1"
    for text in ("PACS", "PACS@host", "PACS@host:0", "PACS@host:70000", "@host:1"):
        with pytest.raises(ConfigError):
            parse_peer(text)


def test_titles() -> None:
    assert check_aet(" NODE ") == "NODE"
    for text in ("", "A" * 17, "A\\B", "ÄE"):
        with pytest.raises(ConfigError):
            check_aet(text)
