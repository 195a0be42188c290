"""Adapters taken out as LoRA, and many of them served in one batch."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model

from llm_experiments.tuners import ClaConfig, S2FTConfig, SpftConfig
from llm_experiments.tuners.serving import BASE, export_as_lora, serving

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

LINEARS = r".*\.\d+\.(.*\.)?(\w+_proj|query|key|value|dense)"
CONFIGS = {
    "s2ft": lambda seed: S2FTConfig(heads=2, channels=3 + seed, seed=seed),
    "s2ft rows": lambda seed: S2FTConfig(heads=2, channels=3 + seed, seed=seed, target_modules=LINEARS),
    "s2ft gather": lambda seed: S2FTConfig(heads=2, channels=3 + seed, seed=seed, layout="gather"),
    "cla": lambda seed: ClaConfig(r=2 + seed, offset=4 * seed),
    "cla factor": lambda seed: ClaConfig(r=2 + seed, offset=4 * seed, form="factor", alpha=5),
}


def logits(model, batch):
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def disturb(model, name):
    """Trained-looking values: every adapter its own noise."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    model.set_adapter(name)
    for p in model.parameters():
        if p.requires_grad:
            with torch.no_grad():
                p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)


@pytest.mark.parametrize("kind", CONFIGS)
def test_adapter_taken_out_as_lora_computes_the_same_on_the_pretrained_model(
    kind, make_model, batch_for, tmp_path
):
    base = make_model().double()
    batch = batch_for(base)
    tuned = get_peft_model(copy.deepcopy(base), CONFIGS[kind](1))
    disturb(tuned, "default")
    after = logits(tuned, batch)
    assert (after - logits(base, batch)).abs().max() > 1e-5
    export_as_lora(tuned, tmp_path)
    assert torch.equal(logits(tuned, batch), after)
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert loaded.peft_config["default"].peft_type == "LORA"
    torch.testing.assert_close(logits(loaded, batch), after, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_example_is_answered_by_its_own_adapter(kind, make_model, batch_for):
    base = make_model().double()
    batch = batch_for(base, size=5)
    tuned = get_peft_model(base, CONFIGS[kind](0))
    for seed in (1, 2):
        tuned.add_adapter(f"other{seed}", CONFIGS[kind](seed))
    answers = {}
    with tuned.disable_adapter():
        answers[BASE] = logits(tuned, batch)
    for name in ("default", "other1", "other2"):
        disturb(tuned, name)
        answers[name] = logits(tuned, batch)
    names = ["other1", "default", BASE, "other2", "other1"]
    with serving(tuned, names):
        together = logits(tuned, batch)
    for i, name in enumerate(names):
        torch.testing.assert_close(together[i], answers[name][i], rtol=0, atol=1e-10)
    assert torch.equal(logits(tuned, batch), answers["other2"]), "the active adapter is back"


def test_what_cannot_be_served_or_taken_out_is_named(build, batch_for, tmp_path):
    model = get_peft_model(build("llama"), ClaConfig(r=2))
    batch = batch_for(model)
    with pytest.raises(ValueError, match="must be among"), serving(model, ["nobody"]):
        pass
    with pytest.raises(ValueError, match="one example per adapter"), serving(model, ["default"]):
        logits(model, batch)
    model.base_model.shift_()
    with pytest.raises(ValueError, match="finished links"), serving(model, ["default"] * 3):
        pass
    with pytest.raises(ValueError, match="finished links"):
        export_as_lora(model, tmp_path)
    model.merge_adapter()
    with pytest.raises(ValueError, match="unmerge"), serving(model, [BASE]):
        pass
    with pytest.raises(ValueError, match="no low-rank change"):
        export_as_lora(get_peft_model(build("llama"), SpftConfig(ratio=0.1)), tmp_path)
    with pytest.raises(ValueError, match="there is no slice"):
        export_as_lora(model, tmp_path, "nobody")
