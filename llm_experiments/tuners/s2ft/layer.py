"""The S2FT layer: a trainable slice under the name that peft stores it by."""

from __future__ import annotations

from llm_experiments.tuners.slices import SliceLayer


class S2FTLayer(SliceLayer):
    """A linear layer of which some input or output channels train; see `SliceLayer`.

    For columns `J`, `delta_W = V U'` with `V = S - W0[:, J]` (d_out x s) and `U = E_J` (d_in x s) the chosen
    columns of the identity: rank at most s, support on s columns.

    Source: S2FT (arXiv:2412.06289), Sections 3.3 and 6.
    """

    adapter_layer_names = ("s2ft_slice",)

    def __repr__(self) -> str:
        return "s2ft." + super().__repr__()
