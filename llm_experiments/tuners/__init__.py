"""Tuners in peft's shape for the methods that peft does not have; importing this package registers them."""

from llm_experiments.tuners.bottleneck import BottleneckConfig
from llm_experiments.tuners.cla import ClaConfig
from llm_experiments.tuners.loreft import LoreftConfig
from llm_experiments.tuners.s2ft import S2FTConfig
from llm_experiments.tuners.spft import SpftConfig

__all__ = ["BottleneckConfig", "ClaConfig", "LoreftConfig", "S2FTConfig", "SpftConfig"]
