"""A slice of a frozen weight that trains: the mechanism that S2FT and cLA share.

Write `W0` (d_out x d_in) for the pretrained weight and `J` for a set of input channels (columns) or output
channels (rows). The trainable numbers are the current values `S` of `W[:, J]` (or `W[J, :]`), the weight
change is `delta_W = (S - W0[:, J]) E_J'` with `E_J` the columns `J` of the identity, and the gradient is
the same slice of the full gradient: `dL/dS = (dL/dy)' x[..., J]` (or `(dL/dy[..., J])' x`).

Two placements give the same function and share one parametrisation, hence one checkpoint:

* *in place*: `J` is a range, and `S` is a view of the storage of `W` itself. There is no second matrix and
  no second product; of the activation only the copied slice is kept for the backward pass (a view would
  keep the storage of the whole activation alive).
* *beside*: any `J`, several adapters at once, overlapping or not; `S` has its own storage, `W` stays at
  `W0`, and `(S - W0[:, J])` acts on the selected channels in a second, skinny product.

The values that the slice started from, its anchor, are kept for every adapter (as many numbers as `S`), so
that disabling, unmerging and switching restore `W0` bit for bit: values are put back, never subtracted.

Source: S2FT (arXiv:2412.06289), Sections 3.2-3.3, where the slice of the activation is kept as a view; LoRA
past, present and future, Algorithms 1 and 3, for `J` a block of `rank` columns.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

ROWS, COLUMNS = 0, 1  # the axis of `W` (d_out x d_in) that a slice selects from


@dataclass(frozen=True)
class Slice:
    """The channels of a weight that train.

    Attributes:
        axis: `COLUMNS` (input channels) or `ROWS` (output channels).
        positions: the channels, in the order in which the trainable slice stores them.
    """

    axis: int
    positions: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.axis not in (ROWS, COLUMNS):
            msg = f"axis must be {ROWS} (rows) or {COLUMNS} (columns); got {self.axis}"
            raise ValueError(msg)
        if not self.positions or len(set(self.positions)) != len(self.positions):
            msg = f"positions must be distinct and not empty; got {list(self.positions)}"
            raise ValueError(msg)

    @classmethod
    def block(cls, axis: int, start: int, length: int, size: int) -> Slice:
        """The `length` channels from `start` on, wrapping around at `size`."""
        return cls(axis, tuple((start + i) % size for i in range(length)))

    @cached_property
    def contiguous(self) -> bool:
        """Whether the channels are an ascending range, so that the slice can alias the weight."""
        return all(p == self.positions[0] + i for i, p in enumerate(self.positions))

    @property
    def start(self) -> int:
        """The first channel."""
        return self.positions[0]

    def __len__(self) -> int:
        return len(self.positions)

    def check(self, weight: Tensor, name: str) -> None:
        """Raises ValueError if a channel lies outside the weight."""
        size = weight.shape[self.axis]
        if min(self.positions) < 0 or max(self.positions) >= size:
            low, high = min(self.positions), max(self.positions)
            msg = f"channels of {name} must lie in 0..{size - 1}; got {low}..{high}"
            raise ValueError(msg)

    def overlaps(self, other: Slice) -> bool:
        """Whether the two share an entry of the weight."""
        return self.axis != other.axis or not set(self.positions).isdisjoint(other.positions)

    def index(self, device: torch.device) -> Tensor:
        """The channels as an index tensor."""
        return torch.tensor(self.positions, dtype=torch.long, device=device)

    def view(self, weight: Tensor) -> Tensor:
        """The slice as a view of `weight`; only a range has one."""
        return weight.narrow(self.axis, self.start, len(self))

    def read(self, weight: Tensor) -> Tensor:
        """A copy of the slice with its own dense storage."""
        if self.contiguous:
            return self.view(weight).clone(memory_format=torch.contiguous_format)
        return weight.index_select(self.axis, self.index(weight.device))

    def write(self, weight: Tensor, values: Tensor) -> None:
        """Puts `values` into the slice of `weight`."""
        if self.contiguous:
            self.view(weight).copy_(values)
            return
        weight.index_copy_(self.axis, self.index(weight.device), values.to(weight.dtype))

    def add(self, weight: Tensor, values: Tensor) -> None:
        """Adds `values` to the slice of `weight`."""
        weight.index_add_(self.axis, self.index(weight.device), values.to(weight.dtype))


class _SliceLinear(torch.autograd.Function):
    """`x W' + bias` where only the slice `S` of `W`, a view of its storage, receives a gradient.

    For columns only a copy of `x[..., a:b]` is kept for the backward pass, for rows the input itself.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, values, axis, start, owner):  # type: ignore[no-untyped-def]
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        kept = None
        if ctx.needs_input_grad[3]:
            kept = x
            if axis == COLUMNS:
                # Dense copy: a view would keep the whole activation in memory until the backward pass.
                kept = x.narrow(-1, start, values.shape[1]).clone(memory_format=torch.contiguous_format)
        # `values` shares the storage of `weight`; saving it costs nothing and lets autograd notice an
        # optimizer step that falls between a forward pass and its backward pass. The weight itself may have
        # been restored and filled again in between (a reference output with the adapter disabled), which
        # its version counter would not forgive: its owner tells whether it holds the same slice as now.
        ctx.save_for_backward(kept, values, None if owner else weight)
        ctx.weight, ctx.owner = weight if owner else None, owner
        ctx.axis, ctx.start, ctx.bias_dtype = axis, start, None if bias is None else bias.dtype
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        kept, values, weight = ctx.saved_tensors
        if ctx.owner:
            weight = ctx.weight
            layer, name, where = ctx.owner
            layer.must_hold(name, where)
        grad_x = grad_bias = grad_values = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight.to(grad.dtype)
        rows = grad.reshape(-1, grad.shape[-1])
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0).to(ctx.bias_dtype)
        if ctx.needs_input_grad[3]:
            if ctx.axis == ROWS:
                rows = rows.narrow(-1, ctx.start, values.shape[0])
            grad_values = (rows.T @ kept.reshape(-1, kept.shape[-1])).to(values.dtype)
        return grad_x, None, grad_bias, grad_values, None, None, None


class SliceLayer(nn.Module, BaseTunerLayer):
    """A linear layer with trainable slices of its frozen weight, one per adapter, in peft's shape.

    Subclasses name their parameters: `adapter_layer_names` holds the one attribute with the slices, its
    prefix the one that peft knows the method by.

    Invariants, whatever peft calls in whatever order:
        * the weight of the base layer is a leaf that never requires a gradient;
        * at most one adapter is *in place*; then its parameter is a view of that weight's storage and the
          weight holds its values. Otherwise the weight is `W0`, or `W0` with the merged adapters;
        * a `Parameter` stays the same object for its lifetime, so that an optimizer may hold it.
    """

    other_param_names = ("anchor", "positions")

    def __init__(self, base_layer: nn.Module, name: str) -> None:
        super().__init__()
        if not isinstance(base_layer, nn.Linear):
            msg = f"{name} must be a torch.nn.Linear to carry a slice; got {type(base_layer).__name__}"
            raise TypeError(msg)
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.layer_name = name
        self.slices: dict[str, Slice] = {}
        # The values that each slice started from and its index: recomputed at injection, never saved.
        self.anchor = BufferDict(persistent=False)
        self.positions = BufferDict(persistent=False)
        setattr(self, self.adapter_layer_names[0], nn.ParameterDict())
        self._in_place: str | None = None
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    @property
    def values(self) -> nn.ParameterDict:
        """The trainable slices by adapter name."""
        return getattr(self, self.adapter_layer_names[0])

    @property
    def in_place(self) -> str | None:
        """Name of the adapter whose slice is a view of the weight, if any."""
        return self._in_place

    # -- parametrisation: the slice itself trains; a subclass may train something that gives the slice ------

    can_alias = True  # whether the parameter is the slice, so that it may share the weight's storage

    def initial(self, anchor: Tensor) -> Tensor:
        """The parameter at which the slice equals its anchor."""
        return anchor.clone()

    def change(self, adapter_name: str) -> Tensor:
        """The change of the slice against its anchor, differentiable in the parameter."""
        return self.values[adapter_name] - self.anchor[adapter_name]

    def current(self, adapter_name: str) -> Tensor:
        """The values of the slice, detached."""
        return self.values[adapter_name].detach()

    # -- placement ------------------------------------------------------------------------------------

    def add_slice(self, adapter_name: str, where: Slice, perturb: bool = False) -> None:
        """Adds the adapter's slice, equal to the pretrained values.

        Args:
            adapter_name: name of the adapter; an existing one of that name is replaced.
            where: the channels.
            perturb: add Gaussian noise of the weight's own scale, for tests that a zero change would pass.
        """
        self.lift()
        weight = self.base_layer.weight
        where.check(weight, self.layer_name)
        anchor = where.read(self.pretrained_weight() if self.merged else weight.detach())
        values = self.initial(anchor)
        if perturb:
            values += anchor.std() * torch.randn_like(values)
        self.slices[adapter_name] = where
        self.anchor[adapter_name] = anchor
        self.positions[adapter_name] = where.index(weight.device)
        self.values[adapter_name] = nn.Parameter(values)
        self.place()

    def lift(self) -> None:
        """Gives the slice in place a storage of its own and restores `W0` bit for bit."""
        if self._in_place is None:
            return
        name, self._in_place = self._in_place, None
        values = self.values[name]
        values.data = values.data.clone(memory_format=torch.contiguous_format)
        self.slices[name].write(self.base_layer.weight.detach(), self.anchor[name])

    def place(self) -> None:
        """Puts the first active slice that can alias the weight into the weight."""
        if self._disable_adapters or self.merged or self._in_place is not None:
            return
        for name in self.active_adapters:
            if name not in self.values or self.values[name].is_meta:
                continue
            if self.can_alias and self.slices[name].contiguous:
                self._in_place = name
                self._alias(write=True)
                return

    def _alias(self, write: bool) -> None:
        """Makes the parameter of the adapter in place a view of the weight again."""
        if self._in_place is None:
            return
        view = self.slices[self._in_place].view(self.base_layer.weight.detach())
        values = self.values[self._in_place]
        if write:
            view.copy_(values.data)
        values.data = view

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        # Moving or casting a module gives every parameter a storage of its own; tie the slice back.
        super()._apply(fn, recurse)
        self._alias(write=False)
        return self

    def __setstate__(self, state) -> None:  # type: ignore[no-untyped-def]
        # Copying a module clones parameter by parameter, which also parts the slice from its weight.
        super().__setstate__(state)
        self._alias(write=False)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        # peft calls this after it has replaced parameters created on the meta device.
        values, weight = self.values.get(adapter_name), self.base_layer.weight
        if values is None or values.is_meta:
            return
        if self._in_place == adapter_name:
            self._alias(write=True)
            return
        values.data = values.data.to(device=device or weight.device, dtype=weight.dtype)
        self.place()

    # -- peft's contract ------------------------------------------------------------------------------

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Activates adapters; the weight switches by writing slices, exactly."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        if names != list(self.active_adapters):
            self.lift()
        super().set_adapter(names, inference_mode)
        self.place()

    def enable_adapters(self, enabled: bool) -> None:
        """Turns all adapters on or off; off restores the pretrained weight bit for bit."""
        super().enable_adapters(enabled)
        if enabled:
            self.place()
        else:
            if self.merged:
                self.unmerge()
            self.lift()

    def delete_adapter(self, adapter_name: str) -> None:
        """Removes an adapter and its trace in the weight."""
        if self._in_place == adapter_name:
            self.lift()
        self.slices.pop(adapter_name, None)
        super().delete_adapter(adapter_name)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """The weight change `delta_W = (S - W0[:, J]) E_J'` (d_out x d_in) of one adapter."""
        delta_W = torch.zeros_like(self.base_layer.weight)
        self.slices[adapter].write(delta_W, self.change(adapter).detach())
        return delta_W

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Writes adapters into the weight: the first on a channel by value, further ones by their change.

        Args:
            safe_merge: refuse slices that are not finite, leaving the weight alone.
            adapter_names: the adapters, by default the active ones.

        Raises:
            ValueError: `safe_merge` found values that are not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.values]
        if safe_merge:
            broken = [name for name in names if not torch.isfinite(self.current(name)).all()]
            if broken:
                msg = f"slices to merge must be finite; adapters {broken} of {self.layer_name} are not"
                raise ValueError(msg)
        self.lift()
        weight = self.base_layer.weight.detach()  # unlike `.data`, shares the version counter
        for name in names:
            where = self.slices[name]
            if any(where.overlaps(self.slices[other]) for other in self.merged_adapters):
                where.add(weight, self.change(name).detach())
            else:
                where.write(weight, self.current(name))
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Restores the pretrained weight bit for bit and puts the active slice back in place."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        for name in self.merged_adapters:
            self.slices[name].write(self.base_layer.weight.detach(), self.anchor[name])
        self.merged_adapters = []
        self.place()

    def pretrained_weight(self) -> Tensor:
        """A copy of `W0`, whatever is in place or merged."""
        weight = self.base_layer.weight.detach().clone()
        for name in [*self.merged_adapters, *([self._in_place] if self._in_place else [])]:
            self.slices[name].write(weight, self.anchor[name])
        return weight

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:  # type: ignore[no-untyped-def]
        """`x W' + bias` (.. x d_in -> .. x d_out), for inputs with any number of leading dimensions."""
        if self.base_layer.weight.requires_grad:
            msg = (
                f"the base weight of {self.layer_name} must stay frozen: its slice trains; "
                "found requires_grad=True, set it to False or remove the adapter"
            )
            raise RuntimeError(msg)
        names = [n for n in self.active_adapters if n in self.values]
        if self._disable_adapters or self.merged or not names:
            return self.base_layer(x, *args, **kwargs)
        placed = self._in_place
        if placed is None:
            y = self.base_layer(x, *args, **kwargs)
        else:
            y = self._inside(x, placed)
        for name in names:
            if name != placed:
                y = self._beside(x, y, name)
        return y

    def _inside(self, x: Tensor, name: str) -> Tensor:
        where, base = self.slices[name], self.base_layer
        # A compiled graph cannot carry the owner; there the weight's version counter stands guard.
        owner = None if torch.compiler.is_compiling() else (self, name, where)
        return _SliceLinear.apply(
            x, base.weight, base.bias, self.values[name], where.axis, where.start, owner
        )

    def must_hold(self, name: str, where: Slice) -> None:
        """Raises RuntimeError if the weight holds another slice than the forward pass has seen."""
        if self._in_place != name or self.slices[name] is not where:
            msg = (
                f"the slice of adapter {name!r} must still be in the weight of {self.layer_name} in the backward "
                "pass; it was disabled, switched, merged or moved after the forward pass: call backward before"
            )
            raise RuntimeError(msg)

    def _beside(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        change, index = self.change(name), self.positions[name]
        columns = self.slices[name].axis == COLUMNS
        if columns:
            x = x.index_select(-1, index)
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(change.dtype)  # a parameter may be kept in float32 beside a weight of fewer bits
        product = F.linear(x, change).to(y.dtype)
        return y + product if columns else y.index_add(-1, index, product)


def refuse_tied_weights(model: nn.Module, names: list[str]) -> None:
    """Raises ValueError if a targeted weight is also another module's parameter."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name in names:
        module = model.get_submodule(name)
        shared = owners[id(module.weight)]
        if len(shared) > 1:
            msg = f"the weight of {name} must not be shared, its slice trains in place; it is also {shared}"
            raise ValueError(msg)


def unplace(model: nn.Module) -> None:
    """Restores every pretrained weight of a model bit for bit, for good: nothing is merged or in place."""
    for layer in model.modules():
        if isinstance(layer, SliceLayer):
            if layer.merged:
                layer.unmerge()
            layer.lift()
