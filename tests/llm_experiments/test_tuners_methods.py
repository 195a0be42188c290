"""Every method of the registry, on every tiny model: one table of properties that all of them share."""

import copy
import json

import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from llm_experiments import methods
from llm_experiments.methods import Budget, MethodError, PeftTuned
from llm_experiments.recipes.base import block_parameters

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

BUDGET = Budget.ratio(0.15)
MODELS = ("llama", "llama_gqa", "bert")
REFUSED = {
    ("bitfit", "llama"): "bias",
    ("bitfit", "llama_gqa"): "bias",
    ("prefix", "bert"): "use a decoder",
}
# Where a property cannot hold, and why.
STARTS_ELSEWHERE = {"prefix": "random virtual tokens take part in the attention from the start"}
DISABLED_IS_NOT_BASE = {"pissa": "the frozen weight is what the top singular triples leave of it"}
# Finished links are saved as factors and added up in one product, not one after the other; disabled, they are
# subtracted from the weights that they were merged into.
MERGED_LINKS = ("cola", "rac_lora", "peso_lora_r", "peso_lora_t")
ONE_ADAPTER = {
    "adalora": "peft's AdaLoRA trains one adapter a model",
    "pissa": "the frozen weight is what one adapter leaves of it",
}
NO_CHECKPOINTING = {"prefix": "the recomputed layer meets the cached keys a second time"}
# Chains and turns come round within the few steps of a test.
CHAINS = {name: {"every": 2} for name in methods.names() if "chain" in methods.get(name).schedule}
CHAINS |= {
    "peso_lora_r": {"every": 2},
    "peso_lora_t": {"every": 2},
    "lisa": {"every": 2},
    "galore": {"gap": 3, "rank": 4},
}
# Bounds on |difference of logits| in float32, logits of order 1: sums in another order, or a change that is
# rounded when it is added to the weights.
ROUNDING = 3e-6

# The scores of S2FT change which channels train and nothing else: one of them meets all models.
ONE_MODEL = [n for n in methods.names() if n.startswith("s2ft_") and n not in ("s2ft_r", "s2ft_g:largest")]
CASES = [
    (name, model)
    for name in methods.names()
    for model in (MODELS[:1] if name in ONE_MODEL else MODELS)
    if (name, model) not in REFUSED
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request):
    return request.param


@pytest.fixture
def apply(build, batch_for):
    """`apply(name, model, seed=0, **options)`: the tuned tiny model, its base, and a batch."""

    def make(name, model, seed=0, dtype=torch.float32, **options):
        base = build(model).to(dtype)
        batch = batch_for(base, size=4)
        tuned = methods.get(name).apply(
            copy.deepcopy(base),
            BUDGET,
            seed,
            calibration=[batch_for(base, seed=s) for s in (1, 2)],
            **{**CHAINS.get(name, {}), **options},
        )
        return tuned, base, batch

    return make


def logits(model, batch):
    model.eval()
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def train(tuned, batch, optimizer, steps, first=0):
    tuned.model.train()
    for step in range(first, first + steps):
        # parts of the batch in turn, so that a wrong order after a resume shows
        part = {k: v[step % 3 : step % 3 + 2] for k, v in batch.items()}
        optimizer.zero_grad()
        tuned.model(**part).loss.backward()
        optimizer.step()
        tuned.schedule.on_step_end(step, optimizer)  # sees the gradients
    optimizer.zero_grad()


@pytest.fixture
def trained(apply):
    def make(name, model, steps=3, **options):
        tuned, base, batch = apply(name, model, **options)
        initial = logits(tuned.model, batch)
        train(tuned, batch, tuned.optimizer(lr=0.02), steps)
        return tuned, base, batch, initial

    return make


def keeps_every_bit(name):
    """Whether the untrained model computes the same sums in the same order as the pretrained one.

    S2FT renumbers the channels of a sum; PiSSA takes a part of the weight away and adds it in a product.
    """
    return not name.startswith(("s2ft", "hybrid", "pissa"))


@pytest.mark.parametrize(("name", "model"), REFUSED)
def test_model_that_cannot_take_the_method_is_refused_with_the_reason(name, model, build):
    with pytest.raises(MethodError, match=REFUSED[name, model]):
        methods.get(name).apply(build(model), BUDGET, seed=0)


def test_untrained_output_is_the_pretrained_one(case, apply):
    tuned, base, batch = apply(*case)
    if case[0] in STARTS_ELSEWHERE:
        assert (logits(tuned.model, batch) - logits(base, batch)).abs().max() > 1e-3
        return
    exact = keeps_every_bit(case[0])
    torch.testing.assert_close(
        logits(tuned.model, batch), logits(base, batch), rtol=0, atol=0 if exact else ROUNDING
    )


def test_counts_follow_the_formula_and_the_budget(case, apply):
    tuned, base, _ = apply(*case)
    report = tuned.parameters_report()
    trainable = sum(p.numel() for p in tuned.model.parameters() if p.requires_grad)
    assert report["trainable"] == report["formula"] == trainable
    assert report["blocks"] == block_parameters(base)
    if tuned.method.uses_budget:
        assert 0.3 * BUDGET.parameters(base) < trainable <= BUDGET.parameters(base) == report["budget"]
    json.dumps(report)


def test_frozen_weights_stay_leaves_without_gradients(case, trained):
    tuned, _, _, _ = trained(*case)
    for name, p in tuned.model.named_parameters():
        assert p.is_leaf, name
        assert p.requires_grad or p.grad is None, name


def test_training_moves_the_output_and_disabling_brings_it_back(case, trained):
    tuned, base, batch, initial = trained(*case)
    after = logits(tuned.model, batch)
    assert (after - initial).abs().max() > 1e-5
    if isinstance(tuned, PeftTuned) and case[0] not in DISABLED_IS_NOT_BASE:
        initial = logits(base, batch) if case[0] in STARTS_ELSEWHERE else initial
        atol = ROUNDING if case[0] in MERGED_LINKS else 0
        with tuned.model.disable_adapter():
            torch.testing.assert_close(logits(tuned.model, batch), initial, rtol=0, atol=atol)
        assert torch.equal(logits(tuned.model, batch), after)


def test_two_adapters_switch_exactly(case, trained):
    tuned, base, batch, _ = trained(*case)
    if not isinstance(tuned, PeftTuned) or case[0] in ONE_ADAPTER:
        return
    first = logits(tuned.model, batch)
    config = copy.deepcopy(tuned.model.peft_config["default"])
    tuned.model.add_adapter("second", config)
    assert torch.equal(logits(tuned.model, batch), first)
    tuned.model.set_adapter("second")
    optimizer = torch.optim.SGD([p for p in tuned.model.parameters() if p.requires_grad], lr=0.5)
    tuned.model(**batch).loss.backward()
    optimizer.step()
    second = logits(tuned.model, batch)
    assert not torch.equal(second, first)
    for _ in range(2):
        tuned.model.set_adapter("default")
        assert torch.equal(logits(tuned.model, batch), first)
        tuned.model.set_adapter("second")
        assert torch.equal(logits(tuned.model, batch), second)


def test_merged_model_is_plain_and_computes_the_same(case, trained, tmp_path):
    tuned, base, batch, _ = trained(*case)
    after = logits(tuned.model, batch)
    if tuned.mergeable is not True:
        assert isinstance(tuned.mergeable, str)
        with pytest.raises(MethodError, match="cannot be merged: "):
            tuned.merge()
        return
    merged = tuned.merge()
    assert type(merged) is type(base)
    assert {n: p.shape for n, p in merged.named_parameters()} == {
        n: p.shape for n, p in base.named_parameters()
    }
    torch.testing.assert_close(logits(merged, batch), after, rtol=0, atol=ROUNDING)
    merged.save_pretrained(tmp_path)
    plain = type(base).from_pretrained(tmp_path)
    assert torch.equal(logits(plain, batch), logits(merged, batch))


def test_saved_numbers_load_on_the_pretrained_model(case, trained, apply, tmp_path):
    tuned, base, batch, _ = trained(*case)
    after = logits(tuned.model, batch)
    tuned.save(tmp_path)
    if isinstance(tuned, PeftTuned):
        reloaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    else:
        again, _, _ = apply(*case)
        again.load(tmp_path)
        reloaded = again.model
    atol = ROUNDING if case[0] in MERGED_LINKS else 0
    torch.testing.assert_close(logits(reloaded, batch), after, rtol=0, atol=atol)


def test_interrupted_training_goes_on_bit_for_bit(case, apply):
    whole, _, batch = apply(*case)
    train(whole, batch, whole.optimizer(lr=0.02, weight_decay=0.1), 7)

    first, _, _ = apply(*case)
    optimizer = first.optimizer(lr=0.02, weight_decay=0.1)
    train(first, batch, optimizer, 5)
    saved = copy.deepcopy((first.state(), first.schedule.state_dict(), optimizer.state_dict()))
    second, _, _ = apply(*case)
    optimizer = second.optimizer(lr=0.02, weight_decay=0.1)
    second.load_state(saved[0])
    second.schedule.load_state_dict(saved[1])
    optimizer.load_state_dict(saved[2])
    train(second, batch, optimizer, 2, first=5)
    assert torch.equal(logits(second.model, batch), logits(whole.model, batch))


def test_foreign_tensors_are_refused(case, apply):
    tuned, _, _ = apply(*case)
    with pytest.raises(MethodError, match="saved tensors must be those"):
        tuned.load_state({"something.else": torch.zeros(1)})


def test_same_seed_gives_the_same_start(case, apply):
    torch.manual_seed(123)
    one, _, _ = apply(*case)
    before = torch.get_rng_state()
    torch.rand(3)
    other, _, _ = apply(*case)
    first, second = one.state(), other.state()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert before.shape == torch.get_rng_state().shape


def test_accumulated_gradients_equal_those_of_the_whole_batch(case, apply):
    tuned, _, batch = apply(*case)
    tuned.model.double()
    parameters = {n: p for n, p in tuned.model.named_parameters() if p.requires_grad}
    # a step, so that factors at zero do not hide a gradient
    train(tuned, batch, tuned.optimizer(lr=0.02), 1)
    tuned.model(**batch).loss.backward()
    whole = {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None}
    tuned.model.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        (tuned.model(**{k: v[half] for k, v in batch.items()}).loss / 2).backward()
    assert whole.keys() == {n for n, p in parameters.items() if p.grad is not None} and whole
    for name, expected in whole.items():
        torch.testing.assert_close(parameters[name].grad, expected, rtol=1e-6, atol=1e-9, msg=name)


def test_wrapped_layers_take_inputs_of_two_and_three_dimensions(case, trained):
    tuned, _, _, _ = trained(*case)
    layers = [m for m in tuned.model.modules() if isinstance(m, BaseTunerLayer) and hasattr(m, "in_features")]
    for layer in layers:
        if getattr(layer, "needs_sublayer", False):
            with pytest.raises(RuntimeError, match="run the whole block"):
                layer(torch.randn(3, layer.in_features))
            continue
        x = torch.randn(2, 3, layer.in_features)
        with torch.no_grad():
            torch.testing.assert_close(layer(x).flatten(0, 1), layer(x.flatten(0, 1)), rtol=0, atol=1e-6)


def test_autocast_in_bf16_gives_finite_gradients_of_the_parameters_type(case, apply):
    tuned, _, batch = apply(*case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = tuned.model(**batch).loss
    loss.backward()
    with_gradient = [p for p in tuned.model.parameters() if p.grad is not None]
    assert with_gradient
    assert all(p.grad.dtype == p.dtype and torch.isfinite(p.grad).all() for p in with_gradient)


@pytest.mark.parametrize(
    "name", [n for n in methods.names() if (n, "llama") not in REFUSED and n not in ONE_MODEL]
)
def test_model_in_bf16_trains(name, apply):
    tuned, base, batch = apply(name, "llama", dtype=torch.bfloat16)
    before = logits(tuned.model, batch)
    train(tuned, batch, tuned.optimizer(lr=0.02), 3)
    after = logits(tuned.model, batch)
    assert torch.isfinite(after).all() and not torch.equal(after, before)
    assert next(base.parameters()).dtype == after.dtype == torch.bfloat16


def test_activation_checkpointing_changes_no_gradient(case, apply):
    gradients = []
    for checkpointing in (False, True):
        tuned, _, batch = apply(*case)
        tuned.model.train()
        if checkpointing:
            base = tuned.model.get_base_model() if isinstance(tuned, PeftTuned) else tuned.model
            base.enable_input_require_grads()
            enable = getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
            if case[0] in NO_CHECKPOINTING:
                with pytest.raises(RuntimeError):
                    tuned.model(**batch)
                return
        tuned.model(**batch).loss.backward()
        gradients.append({n: p.grad for n, p in tuned.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", methods.names())
def test_rows_say_what_they_are(name):
    method = methods.get(name)
    assert method.name == name
    assert method.trains and method.source and method.optimizer and method.schedule
    assert method.mergeable is True or len(method.mergeable) > 10
    assert all(claim.count("/") == 1 for claim in method.claims)


@pytest.mark.parametrize("name", [n for n in methods.names() if methods.get(n).uses_budget])
def test_budget_too_small_is_refused_with_the_least_one(name, build, batch_for):
    base = build("llama")
    with pytest.raises(MethodError, match="budget must be at least"):
        methods.get(name).apply(base, Budget.count(3), seed=0, calibration=[batch_for(base)])


@pytest.mark.parametrize("name", methods.names())
def test_unknown_options_are_refused(name, build, batch_for):
    base = build("bert")
    with pytest.raises(MethodError):
        methods.get(name).apply(base, BUDGET, seed=0, calibration=[batch_for(base)], no_such_option=1)


def test_unknown_method_and_bad_budgets_are_named():
    with pytest.raises(MethodError, match="did you mean s2ft_r"):
        methods.get("s2ft")
    with pytest.raises(MethodError, match="known: full, "):
        methods.get("zzzz")
    for bad in (lambda: Budget.count(0), lambda: Budget.ratio(0.0), lambda: Budget.ratio(1.5)):
        with pytest.raises(ValueError, match="budget"):
            bad()
