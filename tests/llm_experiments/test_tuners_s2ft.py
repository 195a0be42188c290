"""S2FT: the slice, its placement in the weight, selection, renumbering, grouped queries."""

import copy

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from torch import nn

from llm_experiments.tuners import S2FTConfig
from llm_experiments.tuners.architectures import linear, structures
from llm_experiments.tuners.permutation import contiguous_order, inverse, renumber
from llm_experiments.tuners.s2ft import S2FTLayer, calibrate
from llm_experiments.tuners.s2ft.selection import select
from llm_experiments.tuners.slices import COLUMNS, ROWS, Slice

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

# A renumbered sum runs over the same terms in another order: a few units in the last place of O(1) logits.
REORDERED = 1e-6


def logits(model, batch):
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def train(model, batch, steps=3, lr=1e-2):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    for _ in range(steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def slice_layer(axis, positions, d_in=12, d_out=8, dtype=torch.float64, bias=True):
    torch.manual_seed(0)
    layer = S2FTLayer(nn.Linear(d_in, d_out, bias=bias, dtype=dtype).requires_grad_(False), "layer")
    layer.set_adapter("default")
    layer.add_slice("default", Slice(axis, tuple(positions)))
    return layer


# -- one layer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)], ids=["1d", "2d", "3d"])
@pytest.mark.parametrize("positions", [(0, 1, 2), (3, 4, 5), (4, 0, 7)], ids=["front", "middle", "scattered"])
@pytest.mark.parametrize("axis", [COLUMNS, ROWS], ids=["columns", "rows"])
def test_gradient_is_the_slice_of_the_full_gradient(axis, positions, shape):
    layer = slice_layer(axis, positions)
    full = copy.deepcopy(layer.base_layer).requires_grad_(True)
    x = torch.randn(*shape[:-1], 12, dtype=torch.float64, requires_grad=True)
    x_full = x.detach().clone().requires_grad_(True)
    upstream = torch.randn(*shape[:-1], 8, dtype=torch.float64)
    y, y_full = layer(x), full(x_full)
    torch.testing.assert_close(y, y_full, rtol=0, atol=0)
    y.backward(upstream)
    y_full.backward(upstream)
    torch.testing.assert_close(x.grad, x_full.grad, rtol=1e-14, atol=1e-14)
    expected = full.weight.grad.index_select(axis, torch.tensor(positions))
    torch.testing.assert_close(layer.values["default"].grad, expected, rtol=1e-14, atol=1e-14)
    assert layer.base_layer.weight.grad is None


@pytest.mark.parametrize("axis", [COLUMNS, ROWS])
def test_gradients_agree_with_finite_differences(axis):
    layer = slice_layer(axis, (1, 2, 3))
    x = torch.randn(4, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    y = layer(x).square().sum()
    (gradient,) = torch.autograd.grad(y, layer.values["default"])
    direction, step = torch.randn_like(gradient), 1e-6
    with torch.no_grad():
        values = layer.values["default"]
        values += step * direction
        above = layer(x).square().sum()
        values -= 2 * step * direction
        below = layer(x).square().sum()
    torch.testing.assert_close(
        (above - below) / (2 * step), (gradient * direction).sum(), rtol=1e-7, atol=1e-7
    )


def saved_storages(function):
    """Bytes of distinct storages kept for the backward pass, by the storage's address."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = function()
    return kept, result


@pytest.mark.parametrize("positions", [(2, 3, 4), (0, 5, 9)], ids=["in place", "beside"])
def test_only_the_copied_slice_of_the_activation_is_kept(positions):
    layer = slice_layer(COLUMNS, positions, d_in=64, d_out=16)
    x = torch.randn(10, 7, 64, dtype=torch.float64, requires_grad=True)
    weight = layer.base_layer.weight
    kept, y = saved_storages(lambda: layer(x * 1.0))
    activations = {a: n for a, n in kept.items() if a != weight.untyped_storage().data_ptr()}
    slice_bytes, weight_slice_bytes, index_bytes = 10 * 7 * 3 * 8, 16 * 3 * 8, 3 * 8
    if layer.in_place:
        assert list(activations.values()) == [slice_bytes]
    else:
        assert sorted(activations.values()) == sorted([slice_bytes, weight_slice_bytes, index_bytes])
    y.sum().backward()


def test_whole_input_as_slice_is_still_a_copy():
    layer = slice_layer(COLUMNS, range(12))
    x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    inner = x * 1.0
    kept, _ = saved_storages(lambda: layer(inner))
    assert inner.untyped_storage().data_ptr() not in kept


def test_parameter_is_small_dense_and_a_view_of_the_frozen_weight():
    layer = slice_layer(COLUMNS, (2, 3, 4))
    weight, values = layer.base_layer.weight, layer.values["default"]
    assert values.is_leaf and values.shape == (8, 3)
    assert values.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    assert weight.is_leaf and not weight.requires_grad and weight.grad_fn is None
    with torch.no_grad():
        values += 1.0
    assert torch.equal(weight[:, 2:5], values)


def test_optimizer_step_between_forward_and_backward_is_an_error():
    layer = slice_layer(COLUMNS, (2, 3, 4))
    y = layer(torch.randn(4, 12, dtype=torch.float64, requires_grad=True)).sum()
    with torch.no_grad():
        layer.values["default"].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_reference_output_between_forward_and_backward_changes_no_gradient():
    """The pattern of preference tuning: tuned output, output of the disabled model, then backward."""
    x = torch.randn(4, 12, dtype=torch.float64)
    gradients = []
    for between in (False, True):
        layer = slice_layer(COLUMNS, (2, 3, 4))
        with torch.no_grad():
            layer.values["default"].add_(1.0)
        leaf = x.clone().requires_grad_(True)
        y = layer(leaf)
        if between:
            layer.enable_adapters(False)
            with torch.no_grad():
                layer(x)
            layer.enable_adapters(True)
        y.square().sum().backward()
        gradients.append((leaf.grad, layer.values["default"].grad))
    assert torch.equal(gradients[0][0], gradients[1][0]) and torch.equal(gradients[0][1], gradients[1][1])


@pytest.mark.parametrize("interfere", ["switch", "disable", "merge", "replace"])
def test_backward_through_a_weight_that_changed_is_an_error(interfere):
    layer = slice_layer(COLUMNS, (2, 3, 4))
    layer.add_slice("other", Slice(COLUMNS, (5, 6)), perturb=True)
    y = layer(torch.randn(4, 12, dtype=torch.float64, requires_grad=True)).sum()
    if interfere == "switch":
        layer.set_adapter("other")
    elif interfere == "disable":
        layer.enable_adapters(False)
    elif interfere == "merge":
        layer.merge()
    else:
        layer.add_slice("default", Slice(COLUMNS, (0, 1)))
    with pytest.raises(RuntimeError, match="must still be in the weight"):
        y.backward()


def test_backward_of_a_disabled_pass_notices_the_slice_that_came_back():
    layer = slice_layer(COLUMNS, (2, 3, 4))
    layer.enable_adapters(False)
    y = layer(torch.randn(4, 12, dtype=torch.float64, requires_grad=True)).sum()
    layer.enable_adapters(True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda m: m.to(torch.float32), lambda m: m.double()])
def test_slice_stays_tied_to_the_weight_when_copied_or_cast(make_copy):
    layer = slice_layer(COLUMNS, (2, 3, 4))
    with torch.no_grad():
        layer.values["default"].add_(1.0)
    layer = make_copy(layer)
    weight, values = layer.base_layer.weight, layer.values["default"]
    assert values.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    assert values.dtype == weight.dtype == layer.anchor["default"].dtype
    assert torch.equal(weight[:, 2:5], values)


def test_unfrozen_base_weight_is_refused():
    layer = slice_layer(COLUMNS, (2, 3, 4))
    layer.base_layer.weight.requires_grad_(True)
    with pytest.raises(RuntimeError, match="must stay frozen"):
        layer(torch.randn(4, 12, dtype=torch.float64))


def test_layers_other_than_linear_and_channels_outside_are_refused():
    with pytest.raises(TypeError, match="must be a torch.nn.Linear"):
        S2FTLayer(nn.Embedding(4, 3), "embedding")
    with pytest.raises(ValueError, match=r"must lie in 0\.\.11"):
        slice_layer(COLUMNS, (10, 11, 12))
    with pytest.raises(ValueError, match="must be distinct"):
        Slice(COLUMNS, (1, 1))


@pytest.mark.parametrize("first, second", [((0, 1, 2), (6, 7)), ((0, 1, 2), (1, 2, 3)), ((0, 1), (9, 3))])
@pytest.mark.parametrize("axes", [(COLUMNS, COLUMNS), (ROWS, ROWS), (COLUMNS, ROWS)])
def test_fused_adapters_add_and_switch_exactly(first, second, axes):
    layer = slice_layer(axes[0], first, d_out=12)
    W0 = layer.pretrained_weight()
    layer.add_slice("other", Slice(axes[1], second), perturb=True)
    with torch.no_grad():
        layer.values["default"].mul_(1.5)
    x = torch.randn(4, 12, dtype=torch.float64)
    deltas = {name: layer.get_delta_weight(name) for name in ("default", "other")}
    for names in (["default"], ["other"], ["default", "other"], ["other", "default"], ["default"]):
        layer.set_adapter(names)
        expected = F.linear(x, W0 + sum(deltas[n] for n in names), layer.base_layer.bias)
        torch.testing.assert_close(layer(x), expected, rtol=1e-13, atol=1e-13)
        before = layer(x)
        layer.merge()
        torch.testing.assert_close(layer(x), expected, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(layer.base_layer.weight.data, W0 + sum(deltas[n] for n in names))
        layer.unmerge()
        assert torch.equal(layer(x), before)
        layer.enable_adapters(False)
        assert torch.equal(layer.base_layer.weight, W0)
        layer.enable_adapters(True)
        assert torch.equal(layer(x), before)
    assert torch.equal(layer.pretrained_weight(), W0)


def test_safe_merge_refuses_values_that_are_not_finite():
    layer = slice_layer(COLUMNS, (2, 3, 4))
    W0 = layer.pretrained_weight()
    with torch.no_grad():
        layer.values["default"][0, 0] = float("nan")
    with pytest.raises(ValueError, match="must be finite"):
        layer.merge(safe_merge=True)
    layer.enable_adapters(False)
    assert torch.equal(layer.base_layer.weight, W0)


def test_delta_has_the_support_of_its_columns():
    layer = slice_layer(COLUMNS, (2, 3, 4))
    with torch.no_grad():
        layer.values["default"].add_(torch.randn(8, 3, dtype=torch.float64))
    delta_W = layer.get_delta_weight("default")
    assert delta_W.abs().sum(0).nonzero().flatten().tolist() == [2, 3, 4]
    assert torch.linalg.matrix_rank(delta_W) == 3


# -- renumbering --------------------------------------------------------------------------------------


def test_renumbering_keeps_the_function_and_undoing_it_keeps_every_bit(make_model, batch_for):
    model = make_model()
    original, batch = copy.deepcopy(model), batch_for(model)
    before = logits(model, batch)
    orders = {}
    for structure in structures(model):
        chosen = [structure.group, structure.count - 1] if structure.kind == "heads" else [7, 3, 40]
        orders[structure] = contiguous_order(structure, chosen)
        renumber(model, structure, orders[structure])
    moved = sum(not torch.equal(a, b) for a, b in zip(model.parameters(), original.parameters(), strict=True))
    assert moved > 0
    torch.testing.assert_close(logits(model, batch), before, rtol=0, atol=REORDERED)
    for structure, order in orders.items():
        renumber(model, structure, inverse(order))
    for a, b in zip(model.parameters(), original.parameters(), strict=True):
        assert torch.equal(a, b)


def test_order_keeps_key_value_groups_whole(build):
    heads = next(
        s for s in structures(build("llama", num_attention_heads=8, key_value_heads=2)) if s.kind == "heads"
    )
    assert heads.group == 4
    order = contiguous_order(heads, [1, 6])
    assert sorted(order) == list(range(8))
    assert order.index(6) == order.index(1) + 1
    groups = [order[i] // 4 for i in range(8)]
    assert groups in ([0] * 4 + [1] * 4, [1] * 4 + [0] * 4)


def test_head_sets_that_cannot_be_neighbours_are_refused(build):
    model = build("llama", num_attention_heads=8, key_value_heads=4, num_hidden_layers=1)
    config = S2FTConfig(heads=3, selected={"model.layers.0/heads": [0, 2, 4]})
    with pytest.raises(ValueError, match="whole groups or layout='gather'"):
        get_peft_model(model, config)
    for heads in (1, 3):
        with pytest.raises(ValueError, match="must be a multiple of 2"):
            get_peft_model(model, S2FTConfig(heads=heads))


def test_gather_layout_takes_any_head_of_a_grouped_model(build, batch_for):
    model = build("llama_gqa")
    batch = batch_for(model)
    before = logits(model, batch)
    tuned = get_peft_model(model, S2FTConfig(heads=1, channels=3, layout="gather"))
    assert torch.equal(logits(tuned, batch), before)
    train(tuned, batch)
    after = logits(tuned, batch)
    assert not torch.equal(after, before)
    torch.testing.assert_close(logits(tuned.merge_and_unload(), batch), after, rtol=0, atol=REORDERED)


# -- the tuner on models ------------------------------------------------------------------------------

BLOCK_LINEARS = r".*\.\d+\.(.*\.)?(\w+_proj|query|key|value|dense)"

CASES = {
    "default": {"heads": 2, "channels": 5},
    "gather": {"heads": 2, "channels": 5, "layout": "gather"},
    "rows": {"heads": 2, "channels": 5, "target_modules": BLOCK_LINEARS},
    "weight": {"heads": 2, "channels": 5, "selection": "weight", "direction": "smallest"},
    "channels only": {"channels": 4, "seed": 3},
}


@pytest.fixture(params=list(CASES))
def config(request):
    return lambda **changes: S2FTConfig(**{**CASES[request.param], **changes})


def test_life_of_an_adapter(make_model, config, batch_for, tmp_path):
    """Inject, train, disable, merge, unmerge, save, reload, switch, unload: the base survives bit for bit."""
    model = make_model()
    base, batch = copy.deepcopy(model), batch_for(model)
    before = logits(base, batch)
    tuned = get_peft_model(model, config())
    exact = not tuned.base_model.orders
    initial = logits(tuned, batch)
    torch.testing.assert_close(initial, before, rtol=0, atol=0 if exact else REORDERED)

    train(tuned, batch)
    after = logits(tuned, batch)
    assert (after - before).abs().max() > 1e-4
    with tuned.disable_adapter():
        assert torch.equal(logits(tuned, batch), initial)
    assert torch.equal(logits(tuned, batch), after)

    tuned.merge_adapter()
    torch.testing.assert_close(logits(tuned, batch), after, rtol=0, atol=REORDERED)
    tuned.unmerge_adapter()
    assert torch.equal(logits(tuned, batch), after)

    tuned.save_pretrained(tmp_path)
    reloaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(logits(reloaded, batch), after)
    lazily = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(logits(lazily, batch), after)

    merged = copy.deepcopy(tuned).merge_and_unload()
    assert type(merged) is type(base) and not any(isinstance(m, S2FTLayer) for m in merged.modules())
    torch.testing.assert_close(logits(merged, batch), after, rtol=0, atol=REORDERED)
    merged.save_pretrained(tmp_path / "merged")
    plain = type(base).from_pretrained(tmp_path / "merged")
    assert torch.equal(logits(plain, batch), logits(merged, batch))

    unloaded = tuned.unload()
    for (name, a), b in zip(unloaded.named_parameters(), base.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_merged_weights_differ_only_in_the_selected_original_channels(build, batch_for):
    base = build("llama")
    config = S2FTConfig(heads=2, channels=5)
    tuned = get_peft_model(copy.deepcopy(base), config)
    train(tuned, batch_for(base))
    merged = tuned.merge_and_unload()
    changed = {}
    for (name, a), b in zip(merged.named_parameters(), base.parameters(), strict=True):
        columns = (a != b).any(0).nonzero().flatten().tolist() if a.dim() == 2 else []
        if not torch.equal(a, b):
            changed[name] = columns
    expected = {}
    for i in range(2):
        heads = sorted(config.selected[f"model.layers.{i}/heads"])
        expected[f"model.layers.{i}.self_attn.o_proj.weight"] = [h * 8 + c for h in heads for c in range(8)]
        expected[f"model.layers.{i}.mlp.down_proj.weight"] = sorted(
            config.selected[f"model.layers.{i}/channels"]
        )
    assert changed == expected


def test_two_adapters_switch_exactly_and_load_together(make_model, batch_for, tmp_path):
    base = make_model()
    batch = batch_for(base)
    tuned = get_peft_model(copy.deepcopy(base), S2FTConfig(heads=2, channels=5, seed=0))
    initial = logits(tuned, batch)
    train(tuned, batch)
    first = logits(tuned, batch)
    tuned.add_adapter("second", S2FTConfig(heads=2, channels=4, seed=1, layout="gather"))
    assert torch.equal(logits(tuned, batch), first)
    tuned.set_adapter("second")
    assert torch.equal(logits(tuned, batch), initial)
    train(tuned, batch_for(base, seed=5))
    second = logits(tuned, batch)
    for _ in range(3):
        tuned.set_adapter("default")
        assert torch.equal(logits(tuned, batch), first)
        tuned.set_adapter("second")
        assert torch.equal(logits(tuned, batch), second)
    tuned.save_pretrained(tmp_path)
    reloaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, adapter_name="default")
    reloaded.load_adapter(tmp_path / "second", "second")
    assert torch.equal(logits(reloaded, batch), first)
    reloaded.set_adapter("second")
    assert torch.equal(logits(reloaded, batch), second)
    reloaded.set_adapter("default")
    reloaded.delete_adapter("second")
    assert torch.equal(logits(reloaded, batch), first)
    for (name, a), b in zip(reloaded.unload().named_parameters(), base.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_accumulated_gradients_equal_one_large_batch_and_are_clipped(build, batch_for):
    model = build("llama").double()
    batch = batch_for(model, size=4)
    tuned = get_peft_model(model, S2FTConfig(heads=2, channels=5, target_modules="all-linear"))
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    tuned(**batch).loss.backward()
    whole = [p.grad.clone() for p in parameters]
    tuned.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        (tuned(**{k: v[half] for k, v in batch.items()}).loss / 2).backward()
    for p, expected in zip(parameters, whole, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-12)
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1e-3)
    assert norm > 1e-3
    assert torch.cat([p.grad.flatten() for p in parameters]).norm() == pytest.approx(1e-3, rel=1e-3)


def test_training_equals_masked_full_training(build, batch_for):
    base = build("llama").double()
    batch = batch_for(base)
    config = S2FTConfig(heads=2, channels=5)
    tuned = get_peft_model(copy.deepcopy(base), config)
    train(tuned, batch, steps=4)
    merged = tuned.merge_and_unload()

    masks = {}
    for structure in structures(base):
        mask = torch.zeros(linear(base, structure.outgoing).in_features, dtype=torch.float64)
        for unit in config.selected[structure.name]:
            mask[unit * structure.width : (unit + 1) * structure.width] = 1.0
        masks[structure.outgoing + ".weight"] = mask
    base.requires_grad_(False)
    weights = {n: p.requires_grad_(True) for n, p in base.named_parameters() if n in masks}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=0.0)
    for _ in range(4):
        base(**batch).loss.backward()
        for name, weight in weights.items():
            weight.grad *= masks[name]
        optimizer.step()
        optimizer.zero_grad()
    for (name, a), b in zip(merged.named_parameters(), base.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-6, atol=1e-9, msg=name)


def test_gradient_checkpointing_changes_nothing(build, batch_for):
    gradients = []
    for checkpointing in (False, True):
        model = build("llama")
        batch = batch_for(model)
        tuned = get_peft_model(model, S2FTConfig(heads=2, channels=5)).train()
        if checkpointing:
            tuned.enable_input_require_grads()
            base = tuned.get_base_model()
            enable = getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
            assert any(getattr(m, "gradient_checkpointing", False) for m in base.modules())
        tuned(**batch).loss.backward()
        gradients.append([p.grad for p in tuned.parameters() if p.requires_grad])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", ["permute", "gather"])
def test_bf16_autocast_agrees_with_the_plain_layer_under_autocast(layout, build, batch_for):
    model = build("llama")
    batch = batch_for(model)
    base = copy.deepcopy(model)
    tuned = get_peft_model(model, S2FTConfig(heads=2, channels=5, layout=layout))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = tuned(**batch).loss
        loss_base = base(**batch).loss
    assert loss.item() == pytest.approx(loss_base.item(), abs=2e-2)
    loss.backward()
    for name, p in tuned.named_parameters():
        if p.requires_grad:
            assert p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all(), name


def test_bf16_model_trains_and_survives_merging(build, batch_for):
    model = build("llama").bfloat16()
    base, batch = copy.deepcopy(model), batch_for(model)
    tuned = get_peft_model(model, S2FTConfig(heads=2, channels=5))
    assert {p.dtype for p in tuned.parameters() if p.requires_grad} == {torch.bfloat16}
    train(tuned, batch)
    after = logits(tuned, batch)
    merged = copy.deepcopy(tuned).merge_and_unload()
    # bf16 keeps 8 bits: sums in another order differ by about 2^-8 of the logits' size
    torch.testing.assert_close(logits(merged, batch), after, rtol=0, atol=2**-8)
    for a, b in zip(tuned.unload().parameters(), base.parameters(), strict=True):
        assert torch.equal(a, b)


def test_tied_weights_may_not_train_in_place_but_leave_the_rest_alone(build, batch_for):
    model = build("llama", tie_word_embeddings=True)
    with pytest.warns(UserWarning, match="tied"), pytest.raises(ValueError, match="must not be shared"):
        get_peft_model(copy.deepcopy(model), S2FTConfig(inputs=2, target_modules=["lm_head"]))
    tuned = get_peft_model(model, S2FTConfig(channels=5))
    train(tuned, batch_for(model))
    merged = tuned.merge_and_unload()
    assert merged.lm_head.weight is merged.model.embed_tokens.weight


@pytest.mark.filterwarnings("ignore:.*should not be instantiated.*:DeprecationWarning")
def test_torch_compile_gives_the_same_gradients(build):
    tuned = get_peft_model(build("llama", num_hidden_layers=1), S2FTConfig(heads=2, channels=5))
    layer = tuned.get_submodule("base_model.model.model.layers.0.mlp.down_proj")
    x = torch.randn(3, 4, 48, requires_grad=True)
    layer(x).square().sum().backward()
    expected, expected_x = layer.values["default"].grad.clone(), x.grad.clone()
    layer.values["default"].grad = x.grad = None
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    torch.testing.assert_close(layer.values["default"].grad, expected)
    torch.testing.assert_close(x.grad, expected_x)


# -- selection ----------------------------------------------------------------------------------------


def test_random_selection_depends_on_the_seed_alone(make_model):
    config = S2FTConfig(heads=2, channels=5, target_modules=BLOCK_LINEARS, layout="gather", seed=4)
    draw = [select(make_model(), config) for _ in range(2)]
    assert draw[0] == draw[1]
    config.seed = 5
    assert select(make_model(), config) != draw[0]


@pytest.mark.parametrize("direction", ["largest", "smallest"])
@pytest.mark.parametrize("selection", ["weight", "activation", "product", "gradient"])
def test_selection_follows_its_definition(selection, direction, build, batch_for):
    model = build("llama").double()
    batches = [batch_for(model, seed=s) for s in range(2)]
    config = S2FTConfig(heads=1, channels=3, selection=selection, direction=direction)
    calibrate(model, config, batches)

    names = [s.outgoing for s in structures(model)]
    inputs, squares, gradients = {}, dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for name in names:
        linear(model, name).register_forward_pre_hook(
            lambda m, a, name=name: inputs.__setitem__(name, a[0].detach())
        )
    for batch in batches:
        model.zero_grad()
        model(**batch).loss.backward()
        for name in names:
            squares[name] = squares[name] + inputs[name].square().sum((0, 1))
            gradients[name] = gradients[name] + linear(model, name).weight.grad.square().sum(0)
    for structure in structures(model):
        width = structure.width
        per_unit = {
            "weight": linear(model, structure.outgoing)
            .weight.square()
            .sum(0)
            .reshape(-1, width)
            .sum(1)
            .sqrt(),
            "activation": squares[structure.outgoing].reshape(-1, width).sum(1).sqrt(),
            "gradient": gradients[structure.outgoing].reshape(-1, width).sum(1).sqrt(),
        }
        per_unit["product"] = per_unit["weight"] * per_unit["activation"]
        count = 1 if structure.kind == "heads" else 3
        expected = per_unit[selection].topk(count, largest=direction == "largest").indices
        assert config.selected[structure.name] == sorted(expected.tolist())


def test_calibration_leaves_no_trace(build, batch_for):
    model = build("llama").train()
    flags = [p.requires_grad for p in model.parameters()]
    calibrate(model, S2FTConfig(channels=3, selection="gradient", direction="largest"), [batch_for(model)])
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_activation_selection_without_batches_says_what_to_do(build):
    config = S2FTConfig(channels=3, selection="activation", direction="largest")
    with pytest.raises(ValueError, match="needs calibration batches"):
        get_peft_model(build("llama"), config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing would train"),
        ({"heads": 5}, "1 <= heads <= 4"),
        ({"channels": 49}, "1 <= channels <= 48"),
        ({"heads": -1, "channels": 1}, "heads must be at least 0"),
        ({"channels": 1, "selection": "best"}, "selection must be one of"),
        ({"channels": 1, "layout": "sorted"}, "layout must be one of"),
        ({"channels": 1, "direction": "largest"}, "no meaning for a random selection"),
        ({"channels": 1, "selection": "weight"}, "direction must be largest or smallest"),
        ({"heads": 1, "target_modules": ["down_proj"]}, "must meet targeted layers"),
        ({"inputs": 1, "target_modules": ["embed_tokens"]}, "must be a torch.nn.Linear"),
        ({"channels": 1, "selected": {"model.layers.0/channels": [1]}}, "is missing"),
    ],
)
def test_bad_settings_are_named(settings, message, build):
    with pytest.raises((ValueError, TypeError), match=message):
        get_peft_model(build("llama"), S2FTConfig(**settings))


def test_free_standing_linear_layers_train_by_input_channel():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    base = copy.deepcopy(model)
    tuned = get_peft_model(model, S2FTConfig(inputs=2, target_modules=["0", "2"], seed=1))
    x = torch.randn(3, 6)
    assert torch.equal(tuned(x), base(x))
    tuned(x).square().sum().backward()
    assert [p.shape for p in tuned.parameters() if p.grad is not None] == [(5, 2), (4, 2)]


# -- on a GPU -----------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_stay_tied_and_exact_on_a_gpu(dtype, build, batch_for):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    base = build("llama").to(dtype)
    batch = {k: v.cuda() for k, v in batch_for(base).items()}
    tuned = get_peft_model(copy.deepcopy(base), S2FTConfig(heads=2, channels=5)).to("cuda")
    for layer in (m for m in tuned.modules() if isinstance(m, S2FTLayer)):
        assert (
            layer.values["default"].untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()
        )
        assert layer.anchor["default"].is_cuda and layer.positions["default"].is_cuda
    train(tuned, batch)
    for a, b in zip(tuned.unload().parameters(), base.cuda().parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
def test_compiled_training_step_on_a_gpu_agrees_with_the_plain_one(build, batch_for):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    gradients = []
    for compiled in (False, True):
        tuned = get_peft_model(build("llama"), S2FTConfig(heads=2, channels=5)).to("cuda")
        batch = {k: v.cuda() for k, v in batch_for(tuned.get_base_model()).items()}
        model = torch.compile(tuned) if compiled else tuned
        model(**batch).loss.backward()
        gradients.append([p.grad for p in tuned.parameters() if p.requires_grad])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
