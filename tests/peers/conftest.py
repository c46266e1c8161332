"""Other libraries see the larger phantom."""

from __future__ import annotations

import pytest


@pytest.fixture
def phantom_shape() -> tuple[int, int, int]:
    return (40, 44, 36)
