"""Overlaps of two changes, and what the bootstrap over items sees."""

import numpy as np
import pytest
import torch

from llm_experiments.experiments.fusion import Judged, lost, overlaps
from llm_experiments.experiments.tiers import Bed
from llm_experiments.learner import Predictions

BEDS = {
    "main": Bed({}, "1%", "10%", "log_loss", "rho", (), 1),
    "topics": Bed({}, "1%", "10%", "log_loss", "accuracy", (), 1),
}


def test_changes_on_disjoint_columns_share_outputs_but_no_inputs():
    one, two = torch.zeros(3, 4), torch.zeros(3, 4)
    one[:, 0], two[:, 2] = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([2.0, 4.0, 0.0])
    found = overlaps({"W": one, "frozen": torch.zeros(2, 2)}, {"W": two, "frozen": torch.zeros(2, 2)})
    assert list(found) == ["W"]
    assert found["W"]["inputs"] == 0.0
    assert found["W"]["outputs"] == pytest.approx(1.0)


def judged(right: int, order: list[float]) -> Judged:
    """A fused model that is right on `right` of 40 topics and ranks 40 texts by `order`; the single one is perfect."""
    scores = np.arange(40.0)
    log_probs = np.stack([np.zeros(40), np.array(order)], axis=1)
    main = {"log_probs": log_probs, "score": scores}
    perfect = {"log_probs": np.stack([np.zeros(40), scores], axis=1), "score": scores}
    labels = np.zeros(40, dtype=int)
    topics = np.where(np.arange(40)[:, None] < right, [[0.0, -9.0]], [[-9.0, 0.0]])
    known = {"log_probs": np.tile([[0.0, -9.0]], (40, 1)), "label": labels}
    rho = float(np.corrcoef(np.argsort(np.argsort(order)), scores)[0, 1])
    single = {"main": Predictions({"rho": 1.0}, perfect), "topics": Predictions({"accuracy": 1.0}, known)}
    fused = {
        "main": Predictions({"rho": rho}, main),
        "topics": Predictions({"accuracy": right / 40}, {"log_probs": topics, "label": labels}),
    }
    return Judged(single, fused, 1.0, {})


def test_quality_lost_is_the_mean_over_both_tasks_and_pairs_by_item():
    ranked = [float(i) for i in range(40)]
    worse, better = judged(20, ranked), judged(30, ranked)
    alone = lost([worse, worse], None, BEDS)
    assert alone.mean == pytest.approx(0.25)  # nothing in rho, half of the accuracy
    assert alone.items[0] < 0.25 < alone.items[1]
    apart = lost([worse, worse], [better, better], BEDS)
    assert apart.mean == pytest.approx(0.125)
    same = lost([worse, worse], [worse, worse], BEDS)
    assert same.mean == 0
    assert same.items == pytest.approx((0, 0))
