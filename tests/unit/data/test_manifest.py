import pytest

from medddpm.data.manifest import ScanRow, read_manifest, write_manifest
from medddpm.errors import ConfigError


def test_round_trip_sorts_and_keeps_every_column(tmp_path):
    rows = [
        ScanRow("b", "sub-2", split="val", flags="noisy;cropped", file="x, y.nii.gz"),
        ScanRow("a", "sub-1", contrast="T1w", spacing="1x1x1", age="43"),
    ]
    write_manifest(tmp_path / "m.csv", rows)
    assert read_manifest(tmp_path / "m.csv") == rows[::-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scan\na\n", "no column subject"),
        ("scan,subject,split\na,1,training\n", "split of a is 'training'"),
        ("scan,subject\na,1\na,2\n", "lists the scan a twice"),
    ],
)
def test_a_bad_table_is_refused_with_its_reason(tmp_path, text, words):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_manifest(tmp_path / "m.csv")


def test_no_manifest_says_what_writes_it(tmp_path):
    with pytest.raises(ConfigError, match="prepare"):
        read_manifest(tmp_path / "m.csv")
