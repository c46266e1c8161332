"""Two settings do not mix in one folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medddpm.cohort.begin import begun, check_settings
from medddpm.cohort.job import Settings
from medddpm.errors import ConfigError
from medddpm.restoration.options import RestoreOptions


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    out = tmp_path / "out"
    return Settings(out, out / ".medddpm", RestoreOptions(), Path("w"), "digest", run="1")


def _done(settings: Settings) -> None:
    (settings.state / "records").mkdir(parents=True, exist_ok=True)
    (settings.state / "records" / "a.json").write_text("{}")


OTHERS = [
    ("mode", {"options": RestoreOptions(mode="sample")}),
    ("weights", {"digest": "other"}),
    ("format", {"format": "dicom"}),
    ("trust", {"trust": "sform"}),
]


@pytest.mark.parametrize(("name", "change"), OTHERS)
def test_other_settings_one_after_the_other(
    settings: Settings, name: str, change: dict[str, object]
) -> None:
    other = replace(settings, **change)  # type: ignore[arg-type]
    with begun(settings):
        pass
    with begun(other):  # nothing was restored yet
        pass
    _done(other)
    with begun(other), begun(other):  # several with the same settings may
        pass
    with pytest.raises(ConfigError, match=f"another {name}"), begun(settings):
        pass
    with pytest.raises(ConfigError, match=f"another {name}"):
        check_settings(settings, resume=True, overwrite=True)
    with begun(settings, overwrite=True):
        pass
    with begun(settings):
        pass


def test_other_settings_at_once(settings: Settings) -> None:
    other = replace(settings, options=RestoreOptions(mode="sample"))
    with begun(settings):
        for overwrite in (False, True):
            with (
                pytest.raises(ConfigError, match="another run works"),
                begun(other, overwrite=overwrite),
            ):
                pass
        with begun(settings):
            pass
    with begun(other):
        pass
    assert not list((settings.state / "runs").iterdir())


def test_a_run_that_was_killed_does_not_count(settings: Settings) -> None:
    code = (
        "import os, signal; from pathlib import Path; from medddpm.cohort import claims\n"
        f"claims._take(Path({str(settings.state / 'runs')!r}), 'other-1', 'x')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ))
    assert list((settings.state / "runs").iterdir())
    with begun(settings):
        pass
    assert not list((settings.state / "runs").iterdir())
