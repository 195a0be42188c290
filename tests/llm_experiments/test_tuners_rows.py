"""What each method of the registry does beyond the properties that all share: its own definition, by hand."""

import copy

import pytest
import torch
from peft import get_peft_model
from torch import nn

from llm_experiments import methods
from llm_experiments.methods import Budget, MethodError
from llm_experiments.optimizers import GaLoreAdamW
from llm_experiments.recipes.baselines import VERA_RANK, lora_layers
from llm_experiments.recipes.lora import spread_rank
from llm_experiments.recipes.peso import PesoTuned, Restarts, gradient_restart
from llm_experiments.tuners.architectures import blocks, kinds, linear
from llm_experiments.tuners.chained import chain_config
from llm_experiments.tuners.loreft.layer import LoreftLayer
from llm_experiments.tuners.slices import SliceLayer

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

BUDGET = Budget.ratio(0.15)


def steps(tuned, batch, count, lr=0.02, **settings):
    optimizer = tuned.optimizer(lr=lr, **settings)
    for step in range(count):
        optimizer.zero_grad()
        tuned.model(**batch).loss.backward()
        optimizer.step()
        tuned.schedule.on_step_end(step, optimizer)
    return optimizer


@pytest.fixture
def start(build, batch_for):
    def make(name, model="llama", dtype=torch.float64, **options):
        base = build(model).to(dtype)
        batch = batch_for(base)
        tuned = methods.get(name).apply(copy.deepcopy(base), BUDGET, 0, calibration=[batch], **options)
        return tuned, base, batch

    return make


# -- budgets ------------------------------------------------------------------------------------------


def test_ranks_spend_the_budget_evenly_and_to_the_last_rank():
    costs = {"a": 10, "b": 20, "c": 70}
    assert spread_rank(costs, 100) == {"a": 1, "b": 1, "c": 1}
    assert spread_rank(costs, 135) == {"a": 2, "b": 2, "c": 1}
    assert spread_rank(costs, 35) == {"a": 1, "b": 1}
    assert spread_rank(costs, 235, fixed=100) == {"a": 2, "b": 2, "c": 1}
    with pytest.raises(ValueError, match="at least 10"):
        spread_rank(costs, 9)


def test_s2ft_gives_equal_parts_to_output_and_down_projections(start):
    tuned, base, _ = start("s2ft_r")
    report = tuned.parameters_report()
    heads, channels = report["settings"]["heads"], report["settings"]["channels"]
    per_head, per_channel = 2 * 8 * 32, 2 * 32
    budget = BUDGET.parameters(base)
    assert heads == budget // 2 // per_head
    assert 0 <= budget - heads * per_head - channels * per_channel < per_channel
    grouped, _, _ = start("s2ft_r", "llama_gqa")
    assert grouped.settings["heads"] == 0 and grouped.settings["channels"] > channels


def test_ratio_counts_the_parameters_of_the_blocks(build):
    model = build("bert")
    total = sum(p.numel() for block in blocks(model).values() for p in block.parameters())
    assert total == sum(p.numel() for p in model.bert.encoder.layer.parameters())
    assert Budget.ratio(0.5).parameters(model) == total // 2
    assert Budget.count(17).parameters(model) == 17


# -- variants of LoRA ---------------------------------------------------------------------------------


def test_lora_plus_teaches_b_faster(start):
    tuned, _, _ = start("lora_plus", ratio=4.0)
    optimizer = tuned.optimizer(lr=0.01)
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    for layer in lora_layers(tuned.model).values():
        assert rate[id(layer.lora_A["default"].weight)] == 0.01
        assert rate[id(layer.lora_B["default"].weight)] == 0.04


def test_asymmetric_lora_keeps_a_frozen_through_peft_switches(start):
    tuned, _, batch = start("asym_lora", std=0.5)
    before = {n: layer.lora_A["default"].weight.clone() for n, layer in lora_layers(tuned.model).items()}
    assert torch.cat([A.flatten() for A in before.values()]).std() == pytest.approx(0.5, rel=0.1)
    with tuned.model.disable_adapter():
        pass
    tuned.model.set_adapter("default")
    steps(tuned, batch, 3)
    for name, layer in lora_layers(tuned.model).items():
        A = layer.lora_A["default"].weight
        assert not A.requires_grad and torch.equal(A, before[name])
        assert layer.lora_B["default"].weight.abs().max() > 0


def test_pissa_splits_the_weight_into_its_top_part_and_the_rest(start):
    tuned, base, _ = start("pissa", dtype=torch.float32)
    for name, layer in lora_layers(tuned.model).items():
        W0 = base.get_submodule(name.removeprefix("base_model.model.")).weight
        top = layer.get_delta_weight("default")
        torch.testing.assert_close(layer.get_base_layer().weight + top, W0, rtol=0, atol=1e-6)
        singular = torch.linalg.svdvals(W0)[: layer.r["default"]]
        torch.testing.assert_close(torch.linalg.svdvals(top)[: len(singular)], singular, rtol=1e-4, atol=1e-6)


def test_adalora_prunes_to_its_target(start):
    tuned, _, batch = start(
        "adalora", dtype=torch.float32, init_r=3, target_r=1, total_step=8, tinit=1, tfinal=2
    )
    steps(tuned, batch, 8)
    kept = [sum(row) for row in tuned.model.peft_config["default"].rank_pattern.values()]
    assert sum(kept) == len(kept) and max(kept) <= 3


def test_adalora_follows_the_number_of_steps(build):
    for steps, expected in ((None, (120, 12, 30)), (40, (40, 4, 10)), (1, (2, 0, 1))):
        tuned = methods.get("adalora").apply(build("llama"), BUDGET, 0, steps=steps)
        config = tuned.model.peft_config["default"]
        assert (config.total_step, config.tinit, config.tfinal) == expected
    assert (
        methods.get("adalora").apply(build("llama"), BUDGET, 0, steps=40, total_step=9).settings["total_step"]
        == 9
    )


def test_adalora_without_a_rank_to_prune_is_refused(build):
    with pytest.raises(MethodError, match="two ranks of every linear layer"):
        methods.get("adalora").apply(build("llama"), Budget.count(2000), 0)
    for options in ({"init_r": 1}, {"init_r": 3, "target_r": 3}, {"init_r": 3, "target_r": 0}):
        with pytest.raises(MethodError, match="1 <= target_r < init_r"):
            methods.get("adalora").apply(build("llama"), BUDGET, 0, **options)


def test_adalora_penalty_is_what_peft_adds_to_a_loss_of_its_own(start):
    tuned, _, batch = start("adalora", dtype=torch.float32)
    steps(tuned, batch, 2)
    with_labels = tuned.model.base_model(**batch).loss
    bare = tuned.model.get_base_model()(**batch).loss
    torch.testing.assert_close(tuned.penalty(), with_labels - bare, rtol=1e-5, atol=1e-6)
    assert tuned.penalty() > 0 and tuned.penalty().requires_grad
    assert start("lora")[0].penalty() is None


def test_vera_says_where_a_budget_goes_unspent(build):
    rich = methods.get("vera").apply(build("llama"), Budget.count(5000), 0)
    assert rich.settings["r"] == VERA_RANK and f"stops at {VERA_RANK}" in rich.parameters_report()["note"]
    further = methods.get("vera").apply(build("llama"), Budget.count(5000), 0, r=300)
    assert further.settings["r"] == 300 and "note" not in further.parameters_report()
    assert "note" not in methods.get("vera").apply(build("llama"), BUDGET, 0).parameters_report()


# -- chains -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cola", "rac_lora"])
def test_chain_adds_its_links_to_the_pretrained_weight(name, start):
    tuned, base, batch = start(name, every=2, r=1)
    firsts = {n: layer.lora_A["default"].weight.clone() for n, layer in lora_layers(tuned.model).items()}
    optimizer = steps(tuned, batch, 6)
    for layer_name, layer in lora_layers(tuned.model).items():
        links = tuned.links[layer_name]
        assert len(links) == 3
        W0 = base.get_submodule(layer_name.removeprefix("base_model.model.")).weight
        total = sum(B.double() @ A.double() for A, B in links)
        torch.testing.assert_close(layer.get_base_layer().weight, W0 + total, rtol=1e-10, atol=1e-12)
        assert torch.linalg.matrix_rank(total, atol=1e-8) == 3
        assert layer.lora_B["default"].weight.abs().max() == 0
        assert not torch.equal(layer.lora_A["default"].weight, firsts[layer_name])
        if name == "rac_lora":
            assert torch.equal(links[0][0], firsts[layer_name])
    assert not optimizer.state, "moments are reset at the end of a link"


@pytest.mark.parametrize("name", ["cola", "peso_lora_r"])
def test_a_chain_steps_aside_with_its_links(name, start):
    """Disabled, unloaded, deleted or beside another adapter, the weight is the pretrained one to rounding."""
    tuned, base, batch = start(name, every=2)
    steps(tuned, batch, 5)
    model, layers = tuned.model, lora_layers(tuned.model)
    chained = {n: layer.get_base_layer().weight.clone() for n, layer in layers.items()}
    pretrained = {n: base.get_submodule(n.removeprefix("base_model.model.")).weight for n in layers}

    def holds(expected, exactly=False):
        for n, layer in layers.items():
            weight = layer.get_base_layer().weight
            torch.testing.assert_close(weight, expected[n], rtol=0, atol=0 if exactly else 1e-14)

    assert max((chained[n] - pretrained[n]).abs().max() for n in layers) > 1e-4
    with model.disable_adapter():
        holds(pretrained)
    holds(chained, exactly=True)

    model.add_adapter("second", copy.deepcopy(model.peft_config["default"]))
    holds(chained, exactly=True)
    model.set_adapter("second")
    holds(pretrained)
    model.merge_adapter(["second"])
    holds(pretrained)  # its B is zero
    model.unmerge_adapter()
    model.set_adapter("default")
    holds(chained, exactly=True)

    model.merge_adapter()
    with model.disable_adapter():
        holds(pretrained)
    holds(chained)
    with pytest.raises(ValueError, match="cannot be mixed in one batch"):
        model.eval()(**batch, adapter_names=["default", "second", "second"])
    before = copy.deepcopy(tuned.state())
    fresh, _, _ = start(name, every=2)
    fresh.load_state(before)
    with pytest.warns(UserWarning, match="Setting active adapter to second"):
        model.delete_adapter("default")
    holds(pretrained)
    plain = fresh.model.unload()
    for n, W0 in pretrained.items():
        weight = plain.get_submodule(n.removeprefix("base_model.model.")).weight
        torch.testing.assert_close(weight, W0, rtol=0, atol=1e-14)


def test_another_adapter_is_not_merged_before_the_links(start):
    tuned, base, batch = start("cola", every=2)
    steps(tuned, batch, 5)
    tuned.model.add_adapter("second", copy.deepcopy(tuned.model.peft_config["default"]))
    tuned.model.merge_adapter(["second"])
    with pytest.raises(ValueError, match="must be merged first"):
        tuned.model.merge_adapter(["default"])


def test_moments_are_kept_if_asked(start):
    tuned, _, batch = start("cola", every=2, optimizer_state="keep")
    assert len(steps(tuned, batch, 2).state) > 0


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
def test_ten_merges_drift_by_rounding_only(dtype, bound, start):
    """Largest entry of the merged weights off the exact sum of the links, weights being of size 0.02 to 0.1."""
    tuned, base, batch = start("rac_lora", dtype=dtype, every=1, r=1)
    steps(tuned, batch, 10, lr=0.002)
    drift = 0.0
    for name, layer in lora_layers(tuned.model).items():
        W0 = base.get_submodule(name.removeprefix("base_model.model.")).weight.double()
        exact = W0 + sum(B.double() @ A.double() for A, B in tuned.links[name])
        drift = max(drift, (layer.get_base_layer().weight.double() - exact).abs().max().item())
    assert 0 < drift < bound


@pytest.mark.parametrize("name", ["c3la", "random_c3la"])
def test_moving_block_resets_its_moments_and_drifts_nowhere(name, start):
    tuned, base, batch = start(name, every=1)
    optimizer = steps(tuned, batch, 10)
    assert not optimizer.state
    for a, b in zip(tuned.model.unload().parameters(), base.parameters(), strict=True):
        assert torch.equal(a, b)


# -- sparse, projected, by turns ----------------------------------------------------------------------


def test_spft_equals_masked_full_training(start):
    tuned, base, batch = start("spft")
    masks = {}
    for name, layer in tuned.model.named_modules():
        if isinstance(layer, SliceLayer):
            mask = torch.zeros(layer.out_features * layer.in_features, dtype=torch.float64)
            mask[layer.positions["default"]] = 1.0
            masks[name.removeprefix("base_model.model.") + ".weight"] = mask.view(layer.out_features, -1)
    steps(tuned, batch, 4)
    merged = tuned.merge()

    base.requires_grad_(False)
    weights = {n: p.requires_grad_(True) for n, p in base.named_parameters() if n in masks}
    optimizer = torch.optim.AdamW(weights.values(), lr=0.02, weight_decay=0.0)
    for _ in range(4):
        optimizer.zero_grad()
        base(**batch).loss.backward()
        for name, weight in weights.items():
            weight.grad *= masks[name]
        optimizer.step()
    for (name, a), b in zip(merged.named_parameters(), base.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_galore_takes_adams_step_in_the_projected_space(shape):
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    expected = parameter.detach().clone()
    optimizer = GaLoreAdamW([{"params": [parameter], "rank": 2}], lr=0.1, gap=2, scale=0.5, weight_decay=0.2)
    m = v = torch.zeros((2, 6), dtype=torch.float64)
    for t in range(1, 5):
        G = torch.randn(shape, dtype=torch.float64)
        parameter.grad = G.clone()
        optimizer.step()
        wide = G if shape == (4, 6) else G.T
        if t in (1, 3):
            # the moments outlive P, so the sign that the decomposition gives its vectors matters
            U, _, Vh = torch.linalg.svd(G.float(), full_matrices=False)
            P = (U[:, :2] if shape == (4, 6) else Vh[:2].T).double()
        m, v = 0.9 * m + 0.1 * (P.T @ wide), 0.999 * v + 0.001 * (P.T @ wide) ** 2
        N = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        step = 0.5 * P @ N
        expected = (1 - 0.1 * 0.2) * expected - 0.1 * (step if shape == (4, 6) else step.T)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-7)
    assert optimizer.state[parameter]["exp_avg"].numel() == 12


def test_galore_without_projection_is_adamw():
    one, two = (nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2))
    ours, stock = (
        GaLoreAdamW([one], lr=0.1, weight_decay=0.1),
        torch.optim.AdamW([two], lr=0.1, weight_decay=0.1),
    )
    for t in range(3):
        for p, optimizer in ((one, ours), (two, stock)):
            p.grad = torch.cos(torch.arange(12.0) + t).view(3, 4)
            optimizer.step()
    torch.testing.assert_close(one, two)


def test_lisa_changes_the_block_whose_turn_it_is(start):
    tuned, base, batch = start("lisa", every=2, embeddings=False)
    before = [copy.deepcopy(block.state_dict()) for block in blocks(tuned.model).values()]
    active = [any(p.requires_grad for p in block.parameters()) for block in blocks(tuned.model).values()]
    assert sum(active) == 1
    optimizer = tuned.optimizer(lr=0.02)
    for step in range(8):
        active = [any(p.requires_grad for p in block.parameters()) for block in blocks(tuned.model).values()]
        optimizer.zero_grad()
        tuned.model(**batch).loss.backward()
        optimizer.step()
        for block, old, turn in zip(blocks(tuned.model).values(), before, active, strict=True):
            moved = any(not torch.equal(p, old[n]) for n, p in block.state_dict().items())
            assert moved == turn
            held = [p for p in block.parameters() if p in optimizer.state]
            assert bool(held) == turn
        tuned.schedule.on_step_end(step, optimizer)
        before = [copy.deepcopy(block.state_dict()) for block in blocks(tuned.model).values()]
    assert torch.equal(tuned.model.model.embed_tokens.weight, base.model.embed_tokens.weight)


# -- networks beside the weights ----------------------------------------------------------------------


def test_loreft_edits_inside_its_subspace(start):
    tuned, _, batch = start("loreft", r=2)
    steps(tuned, batch, 2)
    layer = next(m for m in tuned.model.modules() if isinstance(m, LoreftLayer))
    h = torch.randn(50, 32, dtype=torch.float64)
    with torch.no_grad():
        change = layer.edit(h, "default") - h
        R = torch.linalg.qr(layer.loreft_R["default"].T).Q.T
    assert torch.linalg.matrix_rank(change) == 2
    torch.testing.assert_close(R @ R.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(change @ R.T @ R, change, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["series", "parallel"])
def test_bottleneck_stands_after_or_beside_the_feed_forward_sublayer(form, start):
    tuned, base, batch = start(f"{form}_adapter", width=3)
    steps(tuned, batch, 2)
    ours = tuned.model.base_model.model.model.layers[0].mlp
    plain = base.model.layers[0].mlp
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    with torch.no_grad():
        y = plain(x)
        down, up = (getattr(ours.down_proj, f"bottleneck_{part}")["default"] for part in ("down", "up"))
        expected = y + up(torch.relu(down(y if form == "series" else x)))
        torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)
        assert not torch.equal(ours(x), y)
    entrance = tuned.model.unload().model.layers[0].mlp.gate_proj
    assert not entrance._forward_pre_hooks


def test_hybrid_trains_the_last_block_whole(start):
    for rest in ("s2ft", "lora"):
        tuned, base, batch = start("hybrid", rest=rest)
        steps(tuned, batch, 2)
        merged = tuned.merge()
        moved = {
            n
            for (n, a), b in zip(merged.named_parameters(), base.parameters(), strict=True)
            if (a != b).any()
        }
        assert {n for n in moved if ".layers.1." in n} == {
            n for n, _ in base.named_parameters() if ".layers.1." in n
        }
        assert moved > {"model.layers.0.mlp.down_proj.weight"}
        assert "model.embed_tokens.weight" not in moved


# -- PESO ---------------------------------------------------------------------------------------------


class Distance(nn.Module):
    """`|W - M|_F^2` with `M = 10 diag(1, .., 1, 0, ..)`, `rank` ones: LoRA of a smaller rank cannot reach it."""

    def __init__(self, size=6, rank=3):
        super().__init__()
        self.layer = nn.Linear(size, size, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.layer.weight)
        self.register_buffer("M", 10 * torch.diag((torch.arange(size) < rank).double()))

    def forward(self):
        eye = torch.eye(len(self.M), dtype=torch.float64)
        return (self.layer(eye).T - self.M).square().sum()


def distance_after(kind, count=600, every=40, rank=2):
    torch.manual_seed(0)
    model = Distance()
    config = chain_config(r=rank, lora_alpha=rank, target_modules=["layer"])
    tuned = PesoTuned(
        get_peft_model(model, config, autocast_adapter_dtype=False), 0, {}, std=None, chain_seed=0
    )
    tuned.model.double()
    if kind != "lora":
        tuned.schedule = Restarts(tuned, every, kind == "t", fresh=1)
    optimizer = tuned.optimizer(lr=0.1)
    for step in range(count):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / count)
        optimizer.zero_grad()
        tuned.model().backward()
        optimizer.step()
        tuned.schedule.on_step_end(step, optimizer)
    return tuned.model().item()


def test_peso_leaves_the_floor_of_plain_lora():
    assert distance_after("lora") == pytest.approx(100.0, rel=1e-3)
    assert distance_after("r") < 0.1
    assert distance_after("t") < 0.1


@pytest.mark.parametrize("name", ["peso_lora_r", "peso_lora_t"])
def test_restart_keeps_the_iterate(name, start):
    tuned, _, batch = start(name, every=3)
    optimizer = tuned.optimizer(lr=0.02)
    for step in range(3):
        optimizer.zero_grad()
        tuned.model(**batch).loss.backward()
        optimizer.step()
        weights = [
            m.get_base_layer().weight + m.get_delta_weight("default")
            for m in lora_layers(tuned.model).values()
        ]
        changed = tuned.schedule.on_step_end(step, optimizer)
    assert changed
    for layer, before in zip(lora_layers(tuned.model).values(), weights, strict=True):
        after = layer.get_base_layer().weight + layer.get_delta_weight("default")
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)


def test_gradient_restart_spans_the_top_of_the_full_gradient(start):
    tuned, base, batch = start("peso_lora_r")
    base(**batch).loss.backward()
    optimizer = tuned.optimizer(lr=0.02)
    for name, layer in lora_layers(tuned.model).items():
        G = base.get_submodule(name.removeprefix("base_model.model.")).weight.grad
        gradient_restart(layer, G, optimizer)
        A, r = layer.lora_A["default"].weight, layer.r["default"]
        captured = (G @ A.T).square().sum()
        best = torch.linalg.svdvals(G)[:r].square().sum()
        torch.testing.assert_close(captured, best, rtol=1e-5, atol=0)


def test_listening_for_the_full_gradient_leaves_nothing_behind(start):
    tuned, _, batch = start("peso_lora_r", every=2)
    anchors = [layer.get_base_layer().weight for layer in lora_layers(tuned.model).values()]
    optimizer = tuned.optimizer(lr=0.02)
    for step in range(4):
        optimizer.zero_grad()
        tuned.model(**batch).loss.backward()
        assert all(weight.grad is None for weight in anchors)
        optimizer.step()
        tuned.schedule.on_step_end(step, optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held.isdisjoint(map(id, anchors))


def test_every_kind_of_linear_layer_is_found_once(build):
    for name, layers in (("llama", 7), ("bert", 6)):
        model = build(name)
        found = kinds(model)
        assert len(found) == layers and all(len(members) == 2 for members in found.values())
        assert (
            linear(model, next(iter(blocks(model))) + "." + next(iter(found)))
            is next(iter(found.values()))[0]
        )
