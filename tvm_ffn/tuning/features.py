"""What the cost model sees of a candidate: its decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_ffn.tuning.workload import point_of

WARM = 8  # records of a task below which there is nothing to learn from


@derived_object
class DecisionFeatures(ms.feature_extractor.PyFeatureExtractor):
    """One row a candidate, the logarithm of each decision: only their order matters to trees."""

    def __init__(self) -> None:
        super().__init__()

    def extract_from(self, context: Any, candidates: Sequence[ms.MeasureCandidate]) -> list[Any]:
        """float32 (1, decisions) for each."""
        rows = [np.log2(1.0 + np.array([list(point_of(c.sch.mod).values())], np.float32)) for c in candidates]
        return [tvm.runtime.tensor(row) for row in rows]


def cost_model() -> ms.cost_model.CostModel:
    """MetaSchedule's XGBoost model on decisions."""
    return ms.cost_model.XGBModel(
        extractor=DecisionFeatures(),
        config=ms.cost_model.xgb_model.XGBConfig(max_depth=6, eta=0.2, nthread=1, seed=0),
        num_warmup_samples=WARM,
        early_stopping_rounds=10,
        adaptive_training=False,
    )
