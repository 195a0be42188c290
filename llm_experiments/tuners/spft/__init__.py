"""Unstructured sparse fine-tuning (SpFT) as a peft tuner."""

from llm_experiments.registration import register_tuner
from llm_experiments.tuners.spft.config import SpftConfig
from llm_experiments.tuners.spft.layer import SpftLayer
from llm_experiments.tuners.spft.model import SpftModel

__all__ = ["SpftConfig", "SpftLayer", "SpftModel"]

register_tuner("spft", SpftConfig, SpftModel)
