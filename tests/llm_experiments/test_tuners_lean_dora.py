"""DoRA that keeps less: peft's numbers, gradients and checkpoints in LoRA's memory."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llm_experiments import methods
from llm_experiments.bench.arms import ARMS
from llm_experiments.bench.step import Step, memory
from llm_experiments.methods import Budget
from llm_experiments.tuners.lean_dora import LeanDoraLinear, lean_dora_config

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
BUDGET = Budget.ratio(0.15)


def pair(build, model, dtype=torch.float64):
    """peft's DoRA and the lean one with the same factors, none of them zero, and magnitudes off the norms."""
    built = []
    for lean in (False, True):
        tuned = methods.get("dora").apply(build(model).to(dtype), BUDGET, 0, lean=lean)
        if dtype == torch.float64:
            tuned.model.double()
        torch.manual_seed(1)
        for parameter in tuned.model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.05 * torch.randn_like(parameter))
        built.append(tuned)
    return built


@pytest.mark.parametrize("model", ["llama", "bert"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_outputs_and_gradients_are_pefts(model, checkpointing, build, batch_for):
    found = []
    for tuned in pair(build, model):
        tuned.model.train()
        if checkpointing:
            base = tuned.model.get_base_model()
            base.enable_input_require_grads()
            enable = getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
        loss = tuned.model(**batch_for(tuned.model.get_base_model())).loss
        loss.backward()
        found.append((loss, {n: p.grad for n, p in tuned.model.named_parameters() if p.requires_grad}))
    (loss, gradients), (lean_loss, lean_gradients) = found
    torch.testing.assert_close(lean_loss, loss, rtol=1e-6, atol=1e-9)
    assert gradients.keys() == lean_gradients.keys()
    assert any("magnitude" in name for name in gradients)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(lean_gradients[name], gradient, rtol=1e-5, atol=1e-8, msg=name)


@pytest.mark.parametrize("model", ["llama", "bert"])
def test_untrained_output_is_the_pretrained_one_bit_for_bit(model, build, batch_for):
    base = build(model)
    batch = batch_for(base)
    tuned = methods.get("dora").apply(copy.deepcopy(base), BUDGET, 0, lean=True)
    with torch.no_grad():
        assert torch.equal(tuned.model(**batch).logits, base(**batch).logits)


def test_gradients_of_the_layer_agree_with_finite_differences():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 4)).double()
    config = lean_dora_config(r=2, lora_alpha=3, target_modules=["0"], init_lora_weights=False)
    tuned = get_peft_model(net, config, autocast_adapter_dtype=False)
    layer = next(m for m in tuned.modules() if isinstance(m, LeanDoraLinear))
    magnitude = layer.lora_magnitude_vector["default"].weight
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    # The norms count as constants, so only the magnitudes and the input have plain derivatives.
    assert torch.autograd.gradcheck(lambda x, m: layer(x), (x, magnitude))


def test_checkpoints_and_merges_are_pefts(build, batch_for, tmp_path):
    ours, lean = pair(build, "llama", torch.float32)
    batch = batch_for(lean.model.get_base_model())
    with torch.no_grad():
        expected = lean.model.eval()(**batch).logits
        torch.testing.assert_close(expected, ours.model.eval()(**batch).logits, rtol=0, atol=3e-6)
        lean.save(tmp_path)
        again = PeftModel.from_pretrained(build("llama"), tmp_path)
        torch.testing.assert_close(again(**batch).logits, expected, rtol=0, atol=3e-6)
        torch.testing.assert_close(lean.merge()(**batch).logits, expected, rtol=0, atol=1e-5)


def test_dropout_and_company_fall_back_to_pefts_code():
    torch.manual_seed(0)
    config = lean_dora_config(r=2, target_modules=["0"], lora_dropout=0.5, init_lora_weights=False)
    tuned = get_peft_model(torch.nn.Sequential(torch.nn.Linear(5, 4)), config).train()
    x, outputs = torch.randn(3, 5), []
    for _ in range(2):
        outputs.append(tuned(x))
        outputs[-1].sum().backward()
    assert not torch.equal(*outputs), "dropout acts"
    plain = LoraConfig(r=2, target_modules=["0"], use_dora=True, init_lora_weights=False)
    tuned.eval().add_adapter("other", plain)
    layer = next(m for m in tuned.modules() if isinstance(m, LeanDoraLinear))
    one = tuned(x)
    layer.set_adapter(["default", "other"])
    assert not torch.equal(tuned(x), one)


def test_training_keeps_at_most_a_third_more_than_lora():
    """Bytes of activations, gradients and moments, counted by storages, on a shape with wide layers."""
    config = LlamaConfig(
        hidden_size=64, intermediate_size=172, num_hidden_layers=2, num_attention_heads=4, vocab_size=96
    )
    ids = torch.randint(96, (2, 32), generator=torch.Generator().manual_seed(0))
    kept = {}
    for arm in ("lora", "dora", "dora_lean"):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            kept[arm] = memory(Step(ARMS[arm], LlamaForCausalLM(config), "plain", ids)).training
    assert kept["dora_lean"] <= 1.3 * kept["lora"]
    assert kept["dora"] > 2 * kept["lora"], "peft needs no help any more: drop the lean form"
