"""cLA: its two forms, the random offset, and the chain whose block moves on."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from llm_experiments.optimizers import AnchoredAdamW, make_optimizer
from llm_experiments.tuners import ClaConfig
from llm_experiments.tuners.cla import ClaLayer
from llm_experiments.tuners.cla.model import random_offset

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

FORMS = ["in_place", "factor"]


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 6)).to(dtype)


def tune(model, **settings):
    return get_peft_model(model, ClaConfig(**{"r": 3, "target_modules": ["0", "2"], **settings}))


def data(dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(8, 10, dtype=dtype, generator=generator),
        torch.randn(8, 6, dtype=dtype, generator=generator),
    )


def run(model, optimizer, steps, after_step=lambda step: None):
    x, y = data()
    for step in range(steps):
        (model(x) - y).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        after_step(step)


def deltas(tuned):
    return [m.get_delta_weight("default") for m in tuned.modules() if isinstance(m, ClaLayer)]


def output(model):
    with torch.no_grad():
        return model(data()[0])


@pytest.mark.parametrize("form", FORMS)
def test_factor_form_is_lora_with_a_fixed_identity_block(form):
    tuned = tune(network(), form=form, alpha=6, offset=2, r=3)
    lora = get_peft_model(
        network(), LoraConfig(r=3, lora_alpha=6, target_modules=["0", "2"]), autocast_adapter_dtype=False
    )
    for name, p in lora.named_parameters():
        if "lora_A" in name:
            p.requires_grad_(False).zero_()
            p[:, 2:5] = torch.eye(3)
    optimizer = torch.optim.Adam([p for p in lora.parameters() if p.requires_grad], lr=1e-2)
    run(lora, optimizer, 5)
    run(tuned, make_optimizer(tuned, lr=1e-2), 5)
    torch.testing.assert_close(output(tuned), output(lora), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("alpha", [1.0, 3.0, 12.0])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adamw", {"eps": 1e-8}),
        ("adamw", {"eps": 1e-2, "betas": (0.8, 0.99)}),
        ("adamw", {"weight_decay": 0.3}),
        ("sgd", {}),
        ("sgd", {"momentum": 0.9}),
    ],
    ids=["adam", "large epsilon", "decay", "sgd", "momentum"],
)
def test_trajectories_of_the_two_forms_agree(name, settings, alpha):
    trajectories = []
    for form in FORMS:
        tuned, trajectory = tune(network(), form=form, alpha=alpha), []
        optimizer = make_optimizer(tuned, lr=0.05, name=name, **settings)
        run(
            tuned,
            optimizer,
            6,
            lambda step, t=tuned, to=trajectory: to.append(torch.cat([d.flatten() for d in deltas(t)])),
        )
        trajectories.append(torch.stack(trajectory))
    assert trajectories[0].abs().max() > 1e-4
    torch.testing.assert_close(*trajectories, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_trajectories_part_without_the_scaled_learning_rate(name):
    ends = []
    for form in FORMS:
        tuned = tune(network(), form=form, alpha=12.0)
        cls = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
        run(tuned, cls([p for p in tuned.parameters() if p.requires_grad], lr=0.05, weight_decay=0.0), 6)
        ends.append(deltas(tuned)[0])
    assert (ends[0] - ends[1]).abs().max() > 1e-2


def test_plain_weight_decay_would_shrink_the_pretrained_columns():
    tuned = tune(network())
    before = {n: p.detach().clone() for n, p in tuned.named_parameters() if p.requires_grad}
    stock = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    anchored = make_optimizer(tune(network()), lr=0.1, weight_decay=0.5)
    for optimizer in (stock, anchored):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.zeros_like(p)
        optimizer.step()
    shrunk = [p.detach() for p in tuned.parameters() if p.requires_grad]
    kept = [p.detach() for g in anchored.param_groups for p in g["params"]]
    for start, small, same in zip(before.values(), shrunk, kept, strict=True):
        torch.testing.assert_close(small, start * 0.95)
        assert torch.equal(same, start)


def test_anchored_optimizer_saves_and_restores_and_is_adamw_without_anchors():
    one, two = (nn.Parameter(torch.arange(4.0)) for _ in range(2))
    ours = AnchoredAdamW([one], {}, lr=0.1, weight_decay=0.2)
    stock = torch.optim.AdamW([two], lr=0.1, weight_decay=0.2)
    for step in range(4):
        for p, optimizer in ((one, ours), (two, stock)):
            p.grad = torch.full_like(p, 1.0 + step)
            optimizer.step()
        state = copy.deepcopy(ours.state_dict())
        ours = AnchoredAdamW([one], {}, lr=9.0)
        ours.load_state_dict(state)
    assert torch.equal(one, two)


@pytest.mark.parametrize(("d_in", "r"), [(12, 3), (10, 3), (5, 5)])
def test_random_offset_reaches_every_column_equally_often(d_in, r):
    generator = torch.Generator().manual_seed(0)
    draws = 6000
    counts = torch.zeros(d_in)
    for _ in range(draws):
        start = random_offset(d_in, r, generator)
        counts[[(start + i) % d_in for i in range(r)]] += 1
    p = r / d_in
    z = (counts - draws * p).abs() / max((draws * p * (1 - p)) ** 0.5, 1e-9)
    assert z.max() < 4.5  # false alarm below 1e-4 for all columns together; p = 1 leaves no deviation


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("links", [1, 3, 7])
def test_chain_in_place_equals_merge_and_restart(form, links, tmp_path):
    """A moving block is the chain of merged cLA adapters, each started afresh `r` columns further on."""
    base = network()
    tuned = tune(copy.deepcopy(base), form=form, alpha=6)
    reference = copy.deepcopy(base)
    for link in range(links):
        if link:
            tuned.base_model.shift_()
        run(tuned, make_optimizer(tuned, lr=0.02), 3)
        one_link = get_peft_model(
            reference, ClaConfig(r=3, alpha=6, form="factor", target_modules=["0", "2"])
        )
        offsets = {"0": 3 * link % 10, "2": 3 * link % 7}
        one_link = get_peft_model(
            one_link.unload(),
            ClaConfig(r=3, alpha=6, form="factor", target_modules=["0", "2"], offsets=offsets),
        )
        run(one_link, make_optimizer(one_link, lr=0.02), 3)
        reference = one_link.merge_and_unload()
        torch.testing.assert_close(output(tuned), output(reference), rtol=1e-9, atol=1e-11)

    after = output(tuned)
    with tuned.disable_adapter():
        assert torch.equal(output(tuned), output(base))
    assert torch.equal(output(tuned), after)
    tuned.merge_adapter()
    torch.testing.assert_close(output(tuned), after, rtol=1e-12, atol=1e-12)
    tuned.unmerge_adapter()
    assert torch.equal(output(tuned), after)
    tuned.save_pretrained(tmp_path)
    for lazily in (False, True):
        reloaded = PeftModel.from_pretrained(
            copy.deepcopy(base), tmp_path, low_cpu_mem_usage=lazily, autocast_adapter_dtype=False
        )
        assert torch.equal(output(reloaded), after)
        with reloaded.disable_adapter():
            assert torch.equal(output(reloaded), output(base))
    assert torch.equal(output(copy.deepcopy(tuned)), after)
    merged = copy.deepcopy(tuned).merge_and_unload()
    torch.testing.assert_close(output(merged), after, rtol=1e-12, atol=1e-12)
    for original, delta, layer in zip((base[0], base[2]), deltas(tuned), (merged[0], merged[2]), strict=True):
        torch.testing.assert_close(layer.weight - original.weight, delta, rtol=1e-10, atol=1e-12)
    for a, b in zip(tuned.unload().parameters(), base.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("form", FORMS)
def test_reloaded_chain_goes_on_as_the_kept_one(form, tmp_path):
    base = network()
    tuned = tune(copy.deepcopy(base), form=form)
    for _ in range(5):  # comes round: 5 blocks of 3 on 10 and 7 columns
        run(tuned, make_optimizer(tuned, lr=0.02), 2)
        tuned.base_model.shift_()
    tuned.save_pretrained(tmp_path)
    reloaded = PeftModel.from_pretrained(
        copy.deepcopy(base), tmp_path, is_trainable=True, autocast_adapter_dtype=False
    )
    for model in (tuned, reloaded):
        run(model, make_optimizer(model, lr=0.02, weight_decay=0.5), 2)
        model.base_model.shift_()
        run(model, make_optimizer(model, lr=0.02), 2)
    assert torch.equal(output(tuned), output(reloaded))


@pytest.mark.parametrize("form", FORMS)
def test_chained_adapter_switches_exactly_and_works_alone(form):
    tuned = tune(network(), form=form)
    initial = output(tuned)
    run(tuned, make_optimizer(tuned, lr=0.02), 2)
    tuned.base_model.shift_()
    run(tuned, make_optimizer(tuned, lr=0.02), 2)
    first = output(tuned)
    tuned.add_adapter("other", ClaConfig(r=2, form=form, target_modules=["0", "2"], offset=4))
    tuned.set_adapter("other")
    assert torch.equal(output(tuned), initial)
    run(tuned, make_optimizer(tuned, lr=0.02), 2)
    other = output(tuned)
    for _ in range(2):
        tuned.set_adapter("default")
        assert torch.equal(output(tuned), first)
        tuned.set_adapter("other")
        assert torch.equal(output(tuned), other)
    with pytest.raises(ValueError, match="works alone"):
        tuned.base_model.set_adapter(["default", "other"])


@pytest.mark.parametrize("ask", ["at every link", "at the end", "after a cast", "after a copy"])
def test_trace_of_a_chain_is_what_its_links_ended_with(ask):
    """Whenever it is asked for, also while the block trains on columns of the trace for the second time."""
    base = network()
    tuned = tune(copy.deepcopy(base))
    layers = [m for m in tuned.modules() if isinstance(m, ClaLayer)]
    ended = [layer.base_layer.weight.detach().clone() for layer in layers]
    for _ in range(6):  # 6 links of 3 on 10 and 7 columns: comes round, with blocks that wrap
        run(tuned, make_optimizer(tuned, lr=0.02), 2)
        now = deltas(copy.deepcopy(tuned)) if ask == "at every link" else None
        for layer, weight in zip(layers, ended, strict=True):
            layer.slices["default"].write(weight, layer.current("default"))
        if now is not None:
            for original, delta, weight in zip((base[0], base[2]), now, ended, strict=True):
                torch.testing.assert_close(original.weight + delta, weight, rtol=1e-12, atol=1e-13)
            tuned.state_dict()
        tuned.base_model.shift_()
    run(tuned, make_optimizer(tuned, lr=0.02), 2)
    if ask == "after a cast":
        tuned.to(torch.float32).to(torch.float64)
        ended = [weight.float().double() for weight in ended]
        base = base.float().double()
    if ask == "after a copy":
        tuned = copy.deepcopy(tuned)
        layers = [m for m in tuned.modules() if isinstance(m, ClaLayer)]
    stored = tuned.state_dict()
    for layer, weight, original in zip(layers, ended, (base[0], base[2]), strict=True):
        columns = list(layer.trace_columns["default"].positions)
        assert columns == tuned.peft_config["default"].visited[layer.layer_name]
        key = next(key for key in stored if key.endswith(f"{layer.layer_name}.cla_trace.default"))
        assert torch.equal(stored[key], weight[:, columns])
        assert torch.equal(layer.trace_pretrained["default"], original.weight[:, columns])
    with tuned.disable_adapter():
        assert torch.equal(output(tuned), output(base))


def test_block_shifts_only_while_active():
    tuned = tune(network())
    tuned.merge_adapter()
    with pytest.raises(ValueError, match="not merged"):
        tuned.base_model.shift_()


def test_half_precision_factor_is_kept_in_float32_and_columns_in_the_weights_type():
    for form, dtype in (("factor", torch.float32), ("in_place", torch.bfloat16)):
        tuned = tune(network(torch.bfloat16), form=form)
        assert {p.dtype for p in tuned.parameters() if p.requires_grad} == {dtype}
        x = data()[0].bfloat16()
        tuned(x).float().square().mean().backward()
        assert tuned(x).dtype == torch.bfloat16
        assert all(p.grad is not None for p in tuned.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "r must be at least 1"),
        ({"r": 8}, "1 <= r <= 7"),
        ({"form": "dense"}, "form must be one of"),
        ({"offset": -1}, "offset must be"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"offsets": {"0": 1}}, "is missing"),
        ({"target_modules": ["1"]}, "must be a torch.nn.Linear"),
        ({"target_modules": None}, "target_modules must be given"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tune(network(), **settings)


def test_optimizer_settings_are_named():
    tuned = tune(network())
    with pytest.raises(ValueError, match="must be one of"):
        make_optimizer(tuned, lr=0.1, name="lion")
    with pytest.raises(ValueError, match="must be 0 with sgd"):
        make_optimizer(tuned, lr=0.1, name="sgd", weight_decay=0.1)
    with pytest.raises(ValueError, match="none does"):
        make_optimizer(network().requires_grad_(False), lr=0.1)
