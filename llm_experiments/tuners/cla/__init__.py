"""Cheap LoRA (cLA), its random form, and the moving slice of c3LA, as a peft tuner."""

from llm_experiments.registration import register_tuner
from llm_experiments.tuners.cla.config import ClaConfig
from llm_experiments.tuners.cla.layer import ClaFactorLayer, ClaInPlaceLayer, ClaLayer
from llm_experiments.tuners.cla.model import ClaModel

__all__ = ["ClaConfig", "ClaFactorLayer", "ClaInPlaceLayer", "ClaLayer", "ClaModel"]

register_tuner("cla", ClaConfig, ClaModel)
