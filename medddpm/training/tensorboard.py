"""The TensorBoard writer, which is an extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medddpm.errors import MissingExtraError


def open_writer(folder: Path) -> Any:
    """A SummaryWriter into `folder`; MissingExtraError says what to install."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "train.tensorboard is on, but tensorboard is not installed: pip install medddpm[train]"
        ) from error
    return SummaryWriter(str(folder))
