"""Which heads and channels train: random, or by the norm of weights, activations, their product, gradients.

A selection names, for every coupled structure, heads or channels in the original numbering of the model.

Source: S2FT (arXiv:2412.06289), Section 3.2 and Appendix D. The paper gives the scores in words; the choices
made here: a score belongs to a channel of a coupled structure, weight and gradient norms run over the slices
that would train, the activation is the one that enters the outgoing projection, and gradient norms add up
squared over calibration batches, so that nothing of the size of a weight is ever kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from torch import Tensor, nn

from llm_experiments.tuners.architectures import Structure, linear, structures
from llm_experiments.tuners.s2ft.config import S2FTConfig

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]


def targeted_structures(model: nn.Module, config: S2FTConfig) -> dict[Structure, tuple[str, ...]]:
    """The structures that the configuration touches, with the linear layers that train in each.

    Raises:
        TypeError: a targeted layer is no `torch.nn.Linear`.
        ValueError: the configuration asks for no heads, channels or inputs where some are targeted, for more
            than there are, or for some where none are targeted.
    """
    owner = {layer: s for s in structures(model) for layer in (*s.incoming, s.outgoing)}
    found: dict[Structure, list[str]] = {}
    for name, module in model.named_modules():
        inside_wrapper = isinstance(module, BaseTunerLayer) is False and ".base_layer" in f".{name}"
        if inside_wrapper or not name or not check_target_module_exists(config, name):
            continue
        base = linear(model, name)
        if not isinstance(base, nn.Linear):
            msg = f"target {name} must be a torch.nn.Linear; got {type(base).__name__}"
            raise TypeError(msg)
        alone = Structure(f"{name}/inputs", "inputs", base.in_features, 1, 1, (), name)
        found.setdefault(owner.get(name, alone), []).append(name)
    if config.selected is None:
        _check_counts(found, config)
    return {structure: tuple(names) for structure, names in found.items()}


def _check_counts(found: Mapping[Structure, list[str]], config: S2FTConfig) -> None:
    for kind in ("heads", "channels", "inputs"):
        wanted = getattr(config, kind)
        having = [s for s in found if s.kind == kind]
        if wanted and not having:
            msg = f"{kind}={wanted} must meet targeted layers that have {kind}; none has, see target_modules"
            raise ValueError(msg)
        for structure in having:
            if not 1 <= wanted <= structure.count:
                msg = (
                    f"{kind} must satisfy 1 <= {kind} <= {structure.count} for the targeted layers of "
                    f"{structure.name}; got {wanted}"
                )
                raise ValueError(msg)


def choose(scores: Tensor, wanted: int, largest: bool, group: int, structure: Structure) -> list[int]:
    """The `wanted` best channels by score; whole groups of `group` heads where the layout demands it."""
    if wanted % group:
        msg = (
            f"heads must be a multiple of {group}, the query heads that share a key-value head in "
            f"{structure.name}, to train in place; got {wanted}; take a multiple or layout='gather'"
        )
        raise ValueError(msg)
    by_group = scores.reshape(-1, group).square().sum(1)
    best = torch.sort(by_group, descending=largest, stable=True).indices[: wanted // group]
    return sorted(int(g) * group + i for g in best for i in range(group))


def select(
    model: nn.Module,
    config: S2FTConfig,
    batches: Iterable[Batch] | None = None,
    loss: Loss | None = None,
) -> dict[str, list[int]]:
    """The heads and channels that the configuration chooses on this model, structure by structure.

    Args:
        model: the pretrained model, not yet wrapped.
        config: its `selection`, `direction`, counts, `seed` and `layout` decide.
        batches: calibration batches, keyword arguments of the model; needed by all but `random` and `weight`.
        loss: `loss(model, batch)`; by default the loss that the model returns for a batch with labels.

    Raises:
        ValueError: calibration batches are missing or empty, or grouped heads do not fit the layout.
    """
    targets = targeted_structures(model, config)
    largest = config.direction == "largest"
    generator = torch.Generator().manual_seed(config.seed)
    scores: dict[Structure, Tensor] = {}
    if config.selection != "random":
        scores = _scores(model, config.selection, targets, batches, loss)
    chosen = {}
    for structure in targets:
        group = structure.group if config.layout == "permute" else 1
        if config.selection == "random":
            draw = torch.rand(structure.count // group, generator=generator)
            score = draw.repeat_interleave(group)
        else:
            score = scores[structure]
        chosen[structure.name] = choose(score, getattr(config, structure.kind), largest, group, structure)
    return chosen


def calibrate(
    model: nn.Module,
    config: S2FTConfig,
    batches: Iterable[Batch] | None = None,
    loss: Loss | None = None,
) -> S2FTConfig:
    """Fills `config.selected` from calibration batches; call it before `get_peft_model`. See `select`."""
    if config.target_modules is None:
        from llm_experiments.tuners.s2ft.model import default_targets

        config.target_modules = default_targets(model, config)
    config.selected = select(model, config, batches, loss)
    return config


def _scores(
    model: nn.Module,
    selection: str,
    targets: Mapping[Structure, tuple[str, ...]],
    batches: Iterable[Batch] | None,
    loss: Loss | None,
) -> dict[Structure, Tensor]:
    if selection == "weight":
        return _weight_norms(model, targets)
    batches = list(batches) if batches is not None else []
    if not batches:
        msg = (
            f"selection={selection!r} needs calibration batches and got none; "
            "call calibrate(model, config, batches) before get_peft_model"
        )
        raise ValueError(msg)
    if selection == "gradient":
        return _gradient_norms(model, targets, batches, loss or _model_loss)
    activations = _activation_norms(model, targets, batches)
    if selection == "activation":
        return activations
    weights = _weight_norms(model, targets)
    return {s: weights[s] * activations[s] for s in targets}


def _model_loss(model: nn.Module, batch: Batch) -> Tensor:
    loss = model(**batch).loss
    if loss is None:
        msg = "calibration batches must carry labels for selection='gradient'; the model returned no loss"
        raise ValueError(msg)
    return loss


def _fold(structure: Structure, module_name: str, squares: Tensor) -> Tensor:
    """Sums squared norms per row or column of a layer to squared norms per head or channel."""
    if structure.shares_key_values(module_name):
        per_group = squares.reshape(-1, structure.width).sum(1)
        return per_group.repeat_interleave(structure.group)
    return squares.reshape(structure.count, -1).sum(1)


def _weight_norms(model: nn.Module, targets: Mapping[Structure, tuple[str, ...]]) -> dict[Structure, Tensor]:
    norms = {}
    for structure, names in targets.items():
        total = torch.zeros(structure.count)
        for name in names:
            axis = 0 if name == structure.outgoing else 1
            squares = linear(model, name).weight.detach().float().square().sum(axis)
            total += _fold(structure, name, squares).cpu()
        norms[structure] = total.sqrt()
    return norms


def _activation_norms(
    model: nn.Module, targets: Mapping[Structure, tuple[str, ...]], batches: Iterable[Batch]
) -> dict[Structure, Tensor]:
    totals = {s: torch.zeros(s.count) for s in targets}

    def watch(structure: Structure):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach().float()
            totals[structure] += _fold(structure, structure.outgoing, x.square().flatten(0, -2).sum(0)).cpu()

        return hook

    handles = [linear(model, s.outgoing).register_forward_pre_hook(watch(s)) for s in targets]
    with _probing(model, handles), torch.no_grad():
        for batch in batches:
            model(**batch)
    return {s: total.sqrt() for s, total in totals.items()}


def _gradient_norms(
    model: nn.Module, targets: Mapping[Structure, tuple[str, ...]], batches: Iterable[Batch], loss: Loss
) -> dict[Structure, Tensor]:
    """Norms of the weight gradient, formed and thrown away layer by layer during the backward pass."""
    totals = {s: torch.zeros(s.count) for s in targets}

    def watch(structure: Structure, name: str):  # type: ignore[no-untyped-def]
        def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            # With every weight frozen, the lowest layers have to ask for gradients themselves.
            x = args[0]
            return (x if x.requires_grad else x.detach().requires_grad_(), *args[1:])

        def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            x = args[0].detach()

            def consume(grad: Tensor) -> None:
                full = grad.flatten(0, -2).float().T @ x.flatten(0, -2).float()
                squares = full.square().sum(0 if name == structure.outgoing else 1)
                totals[structure] += _fold(structure, name, squares).cpu()

            output.register_hook(consume)

        return before, after

    handles = []
    for structure, names in targets.items():
        for name in names:
            before, after = watch(structure, name)
            handles.append(linear(model, name).register_forward_pre_hook(before))
            handles.append(linear(model, name).register_forward_hook(after))
    with _probing(model, handles), torch.enable_grad():
        for batch in batches:
            loss(model, batch).backward()
    return {s: total.sqrt() for s, total in totals.items()}


@contextmanager
def _probing(model: nn.Module, handles: list):  # type: ignore[no-untyped-def]
    """Evaluation mode and frozen parameters while the hooks listen; everything as before afterwards."""
    training = model.training
    flags = [(p, p.requires_grad) for p in model.parameters()]
    model.eval()
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        model.train(training)
