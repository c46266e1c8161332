"""What guards a training: clipped gradients, a watch on its loss, and stops between steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn


@dataclass
class AdaptiveClip:
    """Clips gradients at a multiple of their usual norm (after Seetharaman et al. 2020).

    Networks without normalisation meet, once in a thousand batches, one whose gradient is many
    times the usual; a fixed limit either lets it ruin the weights or slows every step.

    Attributes:
        multiple: Of the usual norm.
        usual: Running mean of the clipped norms; 0 before the first step.
    """

    multiple: float
    usual: float = 0.0

    def limit(self, network: nn.Module) -> bool:
        """Clip the gradients in place; False if they are not finite, and the step is no use."""
        limit = self.multiple * self.usual if self.usual else 1.0
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), limit))
        if not math.isfinite(norm):
            return False
        norm = min(norm, limit)
        self.usual = 0.98 * self.usual + 0.02 * norm if self.usual else norm
        return True


@dataclass
class LossWatch:
    """Tells a run that diverges from an unlucky batch.

    A step is odd when its loss is several times the usual, or its gradient is not finite. Single
    odd steps happen where batches are small; many in a row do not.

    Attributes:
        usual: Running mean of the loss, odd steps left out.
        seen: Steps behind that mean.
        odd: Odd steps in a row; a state is worth saving only while there are none.
        multiple: Of the usual, above which a loss is odd.
        patience: Odd steps in a row that mean divergence.
    """

    usual: float = 0.0
    seen: int = 0
    odd: int = 0
    multiple: float = 5.0
    patience: int = 25

    def diverges(self, loss: float, *, useful: bool) -> bool:
        """Take in one step; True if its loss is not finite, or it is one odd step too many."""
        if not math.isfinite(loss):
            self.odd += 1
            return True
        # The first losses of a run have no level to be compared with.
        if not useful or (self.seen >= 2 * self.patience and loss > self.multiple * self.usual):
            self.odd += 1
            return self.odd >= self.patience
        self.odd = 0
        self.seen += 1
        self.usual += (loss - self.usual) / min(self.seen, 100)
        return False

    @property
    def doubtful(self) -> bool:
        """Whether a run that ends here should not be taken as it is."""
        return self.odd > self.patience // 5
