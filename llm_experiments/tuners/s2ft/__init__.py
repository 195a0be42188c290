"""Structured sparse fine-tuning (S2FT) as a peft tuner."""

from llm_experiments.registration import register_tuner
from llm_experiments.tuners.s2ft.config import S2FTConfig
from llm_experiments.tuners.s2ft.layer import S2FTLayer
from llm_experiments.tuners.s2ft.model import S2FTModel
from llm_experiments.tuners.s2ft.selection import calibrate

__all__ = ["S2FTConfig", "S2FTLayer", "S2FTModel", "calibrate"]

register_tuner("s2ft", S2FTConfig, S2FTModel)
