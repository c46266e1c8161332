"""What a caller knows of a scan's noise is taken frame by frame, and contradictions are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medddpm.errors import ConfigError
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.told import told_of_frames
from medddpm.volume import Volume


def test_one_map_for_all_frames_or_one_for_each(phantom: Volume) -> None:
    film = replace(phantom, data=np.stack([phantom.data] * 2, -1))
    one = np.ones(phantom.data.shape, np.float32)
    each = np.stack([one, 2 * one], -1)
    told = told_of_frames(film, RestoreOptions(), None, one)
    assert told[0] is told[1] is one
    second = told_of_frames(film, RestoreOptions(), None, each)[1]
    np.testing.assert_array_equal(np.asarray(second), 2 * one)
    law = NoiseLaw(sigma=3.0)
    assert told_of_frames(film, RestoreOptions(), law, None) == [law, law]


@pytest.mark.parametrize("changes", [{"sigma": 3.0}, {"noise_map": "off"}])
def test_a_map_beside_another_level_is_refused(phantom: Volume, changes: dict[str, object]) -> None:
    one = np.ones(phantom.data.shape, np.float32)
    options = replace(RestoreOptions(), **changes)
    with pytest.raises(ConfigError, match="noise map"):
        told_of_frames(phantom, options, None, one)
    with pytest.raises(ConfigError, match="noise map"):
        told_of_frames(phantom, RestoreOptions(), NoiseLaw(), one)
    with pytest.raises(ConfigError, match="one map"):
        told_of_frames(phantom, RestoreOptions(), None, one[1:])
