"""Stopping when a metric no longer falls."""

from __future__ import annotations

import math

from linstock import struct


class EarlyStopping(struct.PyTreeNode):
    """Tells when a metric that should fall has not done so for a while.

        stopping = EarlyStopping(min_delta=1e-3, patience=2)
        for epoch in range(epochs):
            stopping = stopping.update(train_epoch())
            if stopping.should_stop:
                break

    Args:
        min_delta: the metric has to fall by more than this to count as improved.
        patience: how many updates in a row without improvement are let pass.
        best_metric: the lowest metric so far.
        patience_count: how many updates there were since it last improved.
        should_stop: whether patience has run out; it stays true.
        has_improved: whether the last update was an improvement.
    """

    min_delta: float = 0
    patience: int = 0
    best_metric: float = float("inf")
    patience_count: int = 0
    should_stop: bool = False
    has_improved: bool = False

    def reset(self) -> EarlyStopping:
        """The state before the first update, with the same settings."""
        return EarlyStopping(min_delta=self.min_delta, patience=self.patience)

    def update(self, metric: float) -> EarlyStopping:
        """The state after one more metric; the first one counts as improved."""
        is_first = math.isinf(self.best_metric)
        if is_first or self.best_metric - metric > self.min_delta:
            return self.replace(best_metric=metric, patience_count=0, has_improved=True)
        return self.replace(
            patience_count=self.patience_count + 1,
            should_stop=self.should_stop or self.patience_count >= self.patience,
            has_improved=False,
        )
