"""Low-rank linear subspace interventions on hidden states (LoReFT) as a peft tuner."""

from llm_experiments.registration import register_tuner
from llm_experiments.tuners.loreft.config import LoreftConfig
from llm_experiments.tuners.loreft.layer import LoreftLayer
from llm_experiments.tuners.loreft.model import LoreftModel

__all__ = ["LoreftConfig", "LoreftLayer", "LoreftModel"]

register_tuner("loreft", LoreftConfig, LoreftModel)
