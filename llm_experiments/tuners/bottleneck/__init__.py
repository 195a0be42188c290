"""Series and parallel bottleneck adapters as a peft tuner."""

from llm_experiments.registration import register_tuner
from llm_experiments.tuners.bottleneck.config import BottleneckConfig
from llm_experiments.tuners.bottleneck.layer import BottleneckLayer
from llm_experiments.tuners.bottleneck.model import BottleneckModel

__all__ = ["BottleneckConfig", "BottleneckLayer", "BottleneckModel"]

register_tuner("bottleneck", BottleneckConfig, BottleneckModel)
