"""When a ratio of times counts as seen."""

from llm_experiments.experiments.training_efficiency import _above


def test_a_ratio_is_above_one_by_its_quartiles_or_left_open():
    assert _above([(1.1, 1.2, 1.3), (1.01, 1.5, 2.0)]) is True
    assert _above([(1.1, 1.2, 1.3), (0.9, 1.5, 2.0)]) is None
    assert _above([(1.1, 1.2, 1.3), (0.7, 0.8, 0.9)]) is False
