"""cLA layers: one block of input columns trains, and in a chain the block moves on."""

from __future__ import annotations

import torch
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn

from llm_experiments.tuners.slices import COLUMNS, Slice, SliceLayer


class ClaLayer(SliceLayer):
    """A linear layer of which a block of `r` columns trains, with the columns of earlier links of a chain.

    After `c` links the weight is `W0 + sum_j delta_W_j`, one `delta_W_j` per link. The columns of finished
    links, their *trace*, are constants of the adapter: they are in the weight while the adapter is active,
    taken out when it is not, and saved with it. A block that comes round to columns of its own trace starts
    from the values there.

    Ending a link in place costs one copy of `r` columns: the tuned values are in the weight already, so only the
    pretrained values of columns not seen before are kept, and the trace is put together when somebody needs it.

    Source: LoRA past, present and future, eq. 5 and 6 and Algorithms 1 and 3.
    """

    other_param_names = (*SliceLayer.other_param_names, "cla_trace", "trace_pretrained", "trace_columns")

    def __init__(self, base_layer: nn.Module, name: str) -> None:
        super().__init__(base_layer, name)
        self.scaling: dict[str, float] = {}
        self.cla_trace = BufferDict(persistent=True)
        self.trace_pretrained = BufferDict(persistent=False)
        self._trace_columns: dict[str, Slice] = {}
        self._traced: list[str] = []  # adapters whose trace is in the weight now
        self._seen: dict[str, set[int]] = {}  # columns of all ended links
        # Links ended in place since the trace was last put together: fresh columns, their pretrained values.
        self._ended: dict[str, list[tuple[tuple[int, ...], Tensor]]] = {}
        self.register_state_dict_pre_hook(_settle_before_saving)
        self.register_load_state_dict_pre_hook(_settle_before_loading)
        self.register_load_state_dict_post_hook(_show_loaded_trace)

    @property
    def trace_columns(self) -> dict[str, Slice]:
        """The columns of finished links by adapter name, in the order of `cla_trace`."""
        self.settle()
        return self._trace_columns

    def add_block(
        self, adapter_name: str, where: Slice, visited: list[int], scaling: float, perturb: bool
    ) -> None:
        """Adds an adapter: its block of columns and the columns that its chain has left behind."""
        self.lift()
        self.scaling[adapter_name] = scaling
        if visited:
            self._leave_trace(adapter_name, Slice(COLUMNS, tuple(visited)))
        self.add_slice(adapter_name, where, perturb)

    def restart(self, adapter_name: str, where: Slice, visited: list[int]) -> None:
        """Puts an adapter at another place of its chain, unchanged there, keeping its parameter object.

        What the block and the trace hold has to be loaded afterwards.
        """
        self.lift()
        self._forget_trace(adapter_name)
        if visited:
            self._leave_trace(adapter_name, Slice(COLUMNS, tuple(visited)))
        self._begin(adapter_name, where)
        self.place()

    def _forget_trace(self, adapter_name: str) -> None:
        self.trace_columns.pop(adapter_name, None)
        self._seen.pop(adapter_name, None)
        for store in (self.cla_trace, self.trace_pretrained):
            if adapter_name in store:
                del store[adapter_name]

    def delete_adapter(self, adapter_name: str) -> None:
        """Removes an adapter and its trace in the weight."""
        self.lift()
        self.scaling.pop(adapter_name, None)
        self._seen.pop(adapter_name, None)
        super().delete_adapter(adapter_name)
        self.place()

    def shift_(self, adapter_name: str, where: Slice) -> tuple[int, ...]:
        """Ends a link: keeps the block's values in the weight and lets the block at `where` train from there.

        The parameter stays the same object, so an optimizer keeps holding it; what becomes of the moments
        that belong to the old block is the caller's decision.

        Returns:
            The columns of the ended link that no link before it had.

        Raises:
            ValueError: the adapter is not the active one, or the layer is merged or disabled.
        """
        if self.merged or self._disable_adapters or list(self.active_adapters) != [adapter_name]:
            msg = (
                f"a block shifts only while its adapter is the one active and not merged; {adapter_name!r} in "
                f"{self.layer_name} is not (active: {list(self.active_adapters)}, merged: {self.merged_adapters})"
            )
            raise ValueError(msg)
        where.check(self.base_layer.weight, self.layer_name)
        finished, seen = self.slices[adapter_name], self._seen.setdefault(adapter_name, set())
        fresh = tuple(column for column in finished.positions if column not in seen)
        if self._in_place == adapter_name:
            self._end_in_place(adapter_name, finished, fresh)
        else:
            self._end_by_rewriting(adapter_name, finished)
        seen.update(fresh)
        if self._in_place == adapter_name and where.contiguous:
            self._move_in_place(adapter_name, where)
        else:
            self._in_place = None  # the ended block is part of the trace now and stays in the weight
            self._begin(adapter_name, where)
            self.place()
        return fresh

    def _end_in_place(self, adapter_name: str, finished: Slice, fresh: tuple[int, ...]) -> None:
        """Ends a link whose values are in the weight already and stay there."""
        pretrained = self.anchor[adapter_name]
        if len(fresh) < len(finished):
            kept = [place for place, column in enumerate(finished.positions) if column in set(fresh)]
            pretrained = pretrained[:, kept]
        ended = self._ended.setdefault(adapter_name, [])
        if fresh:
            ended.append((fresh, pretrained))
        self._traced = [adapter_name]

    def _move_in_place(self, adapter_name: str, where: Slice) -> None:
        """Starts a link at a range of columns: the parameter becomes the view of the weight there."""
        values, view = self.values[adapter_name], where.view(self.base_layer.weight.detach())
        self.anchor[adapter_name] = view.clone(memory_format=torch.contiguous_format)
        self.positions[adapter_name] = torch.arange(where.start, where.start + len(where), device=view.device)
        self.slices[adapter_name] = where
        values.data, values.grad = view, None

    def settle(self) -> None:
        """Puts the trace of the adapter in place together; the weight stays as it is."""
        for name, ended in self._ended.items():
            known = self._trace_columns.get(name)
            positions = [*(known.positions if known else ()), *(p for columns, _ in ended for p in columns)]
            pretrained = [*([self.trace_pretrained[name]] if known else []), *(part for _, part in ended)]
            columns = Slice(COLUMNS, tuple(positions))
            tuned = columns.read(self.base_layer.weight.detach())
            if self._in_place == name:  # the block may train on columns of the trace: it started from these
                block = {column: place for place, column in enumerate(self.slices[name].positions)}
                both = [(place, block[column]) for place, column in enumerate(positions) if column in block]
                for place, own in both:
                    tuned[:, place] = self.anchor[name][:, own]
            self._trace_columns[name] = columns
            self.trace_pretrained[name], self.cla_trace[name] = torch.cat(pretrained, dim=1), tuned
        self._ended.clear()

    def _end_by_rewriting(self, adapter_name: str, finished: Slice) -> None:
        """Ends a link whose block is not in place."""
        values = self.current(adapter_name).clone()
        self.lift()
        known = self.trace_columns.get(adapter_name)
        tuned = None if known is None else self.cla_trace[adapter_name]
        columns = dict.fromkeys([*(known.positions if known else ()), *finished.positions])
        self._leave_trace(adapter_name, Slice(COLUMNS, tuple(columns)))
        trace, weight = self.trace_columns[adapter_name], self.base_layer.weight.detach()
        if known is not None:
            self.cla_trace[adapter_name][:, : len(known)] = tuned
        trace.write(weight, self.cla_trace[adapter_name])
        finished.write(weight, values)
        self.cla_trace[adapter_name].copy_(trace.read(weight))
        self._traced = [adapter_name]

    def _begin(self, adapter_name: str, where: Slice) -> None:
        weight = self.base_layer.weight.detach()
        anchor = where.read(weight)
        self.slices[adapter_name] = where
        self.anchor[adapter_name] = anchor
        self.positions[adapter_name] = where.index(weight.device)
        self.values[adapter_name].data = self.initial(anchor).to(self.values[adapter_name].dtype)
        self.values[adapter_name].grad = None

    def _leave_trace(self, adapter_name: str, columns: Slice) -> None:
        """Makes room for the trace of an adapter, holding the pretrained values for now; `W` must be `W0`."""
        pretrained = columns.read(self.base_layer.weight.detach())
        self.trace_columns[adapter_name] = columns
        self._seen[adapter_name] = set(columns.positions)
        self.trace_pretrained[adapter_name] = pretrained
        self.cla_trace[adapter_name] = pretrained.clone()

    def _check_alone(self, adapter_names: list[str]) -> None:
        chained = [name for name in adapter_names if name in self.trace_columns]
        if chained and len(adapter_names) > 1:
            msg = (
                f"an adapter with a chain works alone, its trace takes the place of pretrained columns; "
                f"{chained[0]!r} in {self.layer_name} got company: {adapter_names}; merge_and_unload first"
            )
            raise ValueError(msg)

    def lift(self) -> None:
        """Takes the block in place and every trace out of the weight, which is `W0` again."""
        self.settle()
        super().lift()
        if not self.merged:
            self._hide()

    def _hide(self) -> None:
        for name in self._traced:
            self.trace_columns[name].write(self.base_layer.weight.detach(), self.trace_pretrained[name])
        self._traced = []

    def place(self) -> None:
        """Puts the trace of the active adapter, then its block, into the weight."""
        if not self._disable_adapters and not self.merged and not self._traced:
            names = [name for name in self.active_adapters if name in self.values]
            self._check_alone(names)
            self._traced = [name for name in names if name in self.trace_columns]
            for name in self._traced:
                self.trace_columns[name].write(self.base_layer.weight.detach(), self.cla_trace[name])
        super().place()

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Writes adapters with their traces into the weight; see `SliceLayer.merge`."""
        wanted = self.active_adapters if adapter_names is None else adapter_names
        self._check_alone([n for n in dict.fromkeys([*self.merged_adapters, *wanted]) if n in self.values])
        super().merge(safe_merge, adapter_names)
        for name in self.merged_adapters:
            if name in self.trace_columns:
                weight = self.base_layer.weight.detach()
                self.trace_columns[name].write(weight, self.cla_trace[name])
                self.slices[name].write(weight, self.current(name))
                self._traced = [name]

    def unmerge(self) -> None:
        """Restores the pretrained weight bit for bit and puts the active block back in place."""
        merged = list(self.merged_adapters)
        for name in merged:
            self.slices[name].write(self.base_layer.weight.detach(), self.anchor[name])
        self._hide()
        if merged:
            self.merged_adapters = []
            self.place()
        else:
            super().unmerge()

    def pretrained_weight(self) -> Tensor:
        """A copy of `W0`, whatever is in place or merged."""
        self.settle()
        weight = super().pretrained_weight()
        for name in self._traced:
            self.trace_columns[name].write(weight, self.trace_pretrained[name])
        return weight

    def get_delta_weight(self, adapter: str) -> Tensor:
        """The weight change of all links together: `(alpha / r) sum_j B_j A_j` (d_out x d_in)."""
        self.settle()
        delta_W = super().get_delta_weight(adapter)
        if adapter in self.trace_columns:
            self.trace_columns[adapter].add(delta_W, self.cla_trace[adapter] - self.trace_pretrained[adapter])
        return delta_W

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        self.settle()
        return super()._apply(fn, recurse)

    def __repr__(self) -> str:
        return "cla." + super().__repr__()


class ClaInPlaceLayer(ClaLayer):
    """cLA whose columns train inside the weight: `S = W0[:, a:b] + (alpha / r) B` is the parameter."""

    adapter_layer_names = ("cla_slice",)


class ClaFactorLayer(ClaLayer):
    """cLA as it is written: `y = W0 x + (alpha / r) B x[a:b]`, `B` (d_out x r) is the parameter.

    The product with `A` is a copied slice of the activation, never a matrix product.
    """

    adapter_layer_names = ("cla_B",)
    can_alias = False

    def initial(self, anchor: Tensor) -> Tensor:
        """`B = 0`."""
        return torch.zeros_like(anchor)

    def change(self, adapter_name: str) -> Tensor:
        """`(alpha / r) B`."""
        return self.scaling[adapter_name] * self.values[adapter_name]

    def current(self, adapter_name: str) -> Tensor:
        """`W0[:, a:b] + (alpha / r) B`, detached."""
        return (self.anchor[adapter_name] + self.change(adapter_name).detach()).to(
            self.anchor[adapter_name].dtype
        )


def _settle_before_saving(layer: ClaLayer, prefix: str, keep_vars: bool) -> None:
    layer.settle()


def _settle_before_loading(layer: ClaLayer, *arguments: object) -> None:
    layer.settle()


def _show_loaded_trace(layer: ClaLayer, incompatible_keys: object) -> None:
    """Loading changes stored traces: the blocks that start from them and the weight have to follow."""
    for name, columns in layer.trace_columns.items():
        weight = layer.pretrained_weight()
        columns.write(weight, layer.cla_trace[name])
        layer.anchor[name].copy_(layer.slices[name].read(weight))
        if name in layer._traced:
            values = layer.current(name).clone()
            columns.write(layer.base_layer.weight.detach(), layer.cla_trace[name])
            if layer.in_place == name:
                layer.slices[name].write(layer.base_layer.weight.detach(), values)
