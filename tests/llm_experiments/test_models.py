"""Models: registry, GGUF decoding, local folders, cached lower layers."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

from llm_experiments import gguf_decode, models
from llm_experiments.errors import UserError
from llm_experiments.lower import LowerHalf, Skip, layers_of
from sims import assets

TINY = ["tiny_llama", "tiny_llama_gqa", "tiny_bert"]


def outputs(loaded, mask, **inputs):
    found = loaded.model(attention_mask=mask, **inputs)
    return found.last_hidden_state if loaded.kind == "encoder" else found.logits


def ragged(width: int = 9):
    """Two sequences, the second one padded."""
    ids = torch.randint(0, 200, (2, width), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, width - 3 :] = 0
    return ids, mask


@pytest.mark.parametrize("name", TINY)
def test_a_random_model_depends_on_its_seed_alone(name):
    first, again, other = (models.load(name, seed=seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", TINY)
def test_cached_states_give_the_same_output_bit_for_bit(name, tmp_path):
    loaded = models.load(name)
    loaded.model.eval()
    ids, mask = ragged()
    whole = outputs(loaded, mask, input_ids=ids)
    names = [key for key, _ in loaded.model.named_modules() if key.count(".") == 2]
    lower = LowerHalf(loaded.model, 1, "weights")
    top = outputs(loaded, mask, inputs_embeds=lower.run(ids, mask))
    real = mask.bool()
    assert torch.equal(whole[real], top[real])
    assert isinstance(layers_of(loaded.model)[0], Skip)

    sequences = [ids[0].tolist(), ids[1, :6].tolist()]
    states = lower.states(sequences, 0, tmp_path)
    assert torch.equal(states[0], lower.run(ids, mask)[0])
    assert torch.allclose(states[1], lower.run(ids[1:, :6], mask[1:, :6])[0], atol=1e-6)
    (stored,) = tmp_path.glob("*.npy")
    before = stored.stat().st_mtime_ns
    lower.states(sequences, 0, tmp_path)
    assert stored.stat().st_mtime_ns == before

    lower.rejoin(loaded.model)
    assert torch.equal(whole, outputs(loaded, mask, input_ids=ids))
    assert names == [key for key, _ in loaded.model.named_modules() if key.count(".") == 2]


@pytest.mark.parametrize("depth", [0, 2])
def test_caching_must_leave_a_layer_to_tune(depth):
    with pytest.raises(ValueError, match="1 <= cached_lower < 2"):
        LowerHalf(models.load("tiny_bert").model, depth, "weights")


@pytest.mark.parametrize("name", TINY)
def test_a_local_folder_is_loaded_by_its_path(name, tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    made = models.load(name)
    made.model.save_pretrained(tmp_path / "mine")
    Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a")).save(str(tmp_path / "mine" / "tokenizer.json"))
    found = models.load(str(tmp_path / "mine"))
    ids, mask = ragged()
    assert found.kind == made.kind
    assert found.label == "mine"
    assert str(tmp_path) not in json.dumps(found.provenance)
    made.model.eval(), found.model.eval()
    assert torch.equal(outputs(made, mask, input_ids=ids), outputs(found, mask, input_ids=ids))


def test_a_folder_whose_weights_do_not_fit_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    models.load("tiny_llama").model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}'
    )
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="model.norm.weight"):
        models.load(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [("nothing", "model must be one of"), (".", "must hold config.json"), (__file__, "is not a GGUF file")],
)
def test_what_is_no_model_is_named(name, words):
    with pytest.raises(UserError, match=words):
        models.load(name)


def test_an_unprepared_model_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="llm_experiments prepare --only smollm2"):
        models.load("smollm2")


def test_minilm_is_the_pretrained_encoder():
    assets.fetch(["minilm"])
    loaded = models.load("minilm")
    assert sum(p.numel() for p in loaded.model.parameters()) == 22_565_376  # 22.7 M less the unused pooler
    assert len(layers_of(loaded.model)) == 6
    assert loaded.tokenizer.encode("hello world") == [101, 7592, 2088, 102]
    loaded.model.eval()

    def embed(text):
        ids = torch.tensor([loaded.tokenizer.encode(text)])
        return loaded.model(input_ids=ids).last_hidden_state.mean(1)[0]

    film, movie, tax = map(embed, ("a wonderful film", "a great movie", "income tax law"))
    near, far = (torch.cosine_similarity(film, other, dim=0) for other in (movie, tax))
    assert near > far + 0.3  # random weights know no synonyms


# --- GGUF ----------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def write_gguf(path, pairs, tensors):
    """A GGUF file; `pairs` are (name, type, packed value), `tensors` (name, torch shape, kind, raw bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(text(name) + struct.pack("<I", kind) + value for name, kind, value in pairs)
    offset, data = 0, b""
    for name, shape, kind, raw in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", kind, offset)
        data += raw + b"\0" * (-len(raw) % 32)
        offset = len(data)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)


def test_blocks_are_decoded_as_their_definition_says(tmp_path):
    rng = np.random.default_rng(0)
    nibbles = rng.integers(0, 16, 32)
    packed = (nibbles[:16] | nibbles[16:] << 4).astype(np.uint8).tobytes()
    scale, low = np.float16(0.25), np.float16(-1.5)
    bytes_ = rng.integers(-128, 128, 32).astype(np.int8)
    plain = rng.standard_normal(32).astype(np.float32)
    tensors = [
        ("q4_0", (1, 32), 2, scale.tobytes() + packed),
        ("q4_1", (1, 32), 3, scale.tobytes() + low.tobytes() + packed),
        ("q8_0", (1, 32), 8, scale.tobytes() + bytes_.tobytes()),
        ("f32", (4, 8), 0, plain.tobytes()),
        ("f16", (32,), 1, plain.astype(np.float16).tobytes()),
        ("bf16", (32,), 30, (plain.view(np.uint32) >> 16).astype(np.uint16).tobytes()),
    ]
    write_gguf(tmp_path / "a.gguf", [("general.name", 8, text("x"))], tensors)
    file = gguf_decode.GGUFFile(tmp_path / "a.gguf")
    assert file.metadata == {"general.name": "x"}
    assert np.array_equal(file.tensor("q4_0")[0], 0.25 * (nibbles - 8))
    assert np.array_equal(file.tensor("q4_1")[0], 0.25 * nibbles - 1.5)
    assert np.array_equal(file.tensor("q8_0")[0], 0.25 * bytes_.astype(np.float32))
    assert np.array_equal(file.tensor("f32"), plain.reshape(4, 8))
    assert np.array_equal(file.tensor("f16"), plain.astype(np.float16).astype(np.float32))
    assert np.array_equal(
        file.tensor("bf16"),
        torch.from_numpy(plain).view(torch.int32).bitwise_and(-65536).view(torch.float32).numpy(),
    )


def test_the_numpy_decoder_agrees_with_the_gguf_package(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed; nothing to compare with")
    kinds = [gguf.GGMLQuantizationType[name] for name in ("Q4_0", "Q4_1", "Q8_0")]
    weight = np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32)
    raw = [gguf.quantize(weight, kind) for kind in kinds]
    tensors = [
        (kind.name, weight.shape, int(kind), block.tobytes()) for kind, block in zip(kinds, raw, strict=True)
    ]
    write_gguf(tmp_path / "a.gguf", [], tensors)
    file = gguf_decode.GGUFFile(tmp_path / "a.gguf")
    for kind, block in zip(kinds, raw, strict=True):
        assert np.array_equal(file.tensor(kind.name), gguf.dequantize(block, kind))


def llama_gguf(path):
    """A Llama with grouped queries as a GGUF file, and the transformers model that it must become."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = ["<end>", "a", "b", "ab", *map(str, range(10))]
    config = models.tiny_llama_config(
        vocab_size=len(tokens),
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**config.to_dict())).eval()
    number, real, array = 4, 6, 9
    strings = lambda values: struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values))  # noqa: E731
    pairs = [
        ("general.architecture", 8, text("llama")),
        ("llama.block_count", number, struct.pack("<I", 2)),
        ("llama.context_length", number, struct.pack("<I", 256)),
        ("llama.embedding_length", number, struct.pack("<I", 32)),
        ("llama.feed_forward_length", number, struct.pack("<I", 64)),
        ("llama.attention.head_count", number, struct.pack("<I", 4)),
        ("llama.attention.head_count_kv", number, struct.pack("<I", 2)),
        ("llama.attention.layer_norm_rms_epsilon", real, struct.pack("<f", config.rms_norm_eps)),
        ("llama.rope.freq_base", real, struct.pack("<f", 10000.0)),
        ("tokenizer.ggml.model", 8, text("gpt2")),
        ("tokenizer.ggml.pre", 8, text("smollm")),
        ("tokenizer.ggml.tokens", array, strings(tokens)),
        ("tokenizer.ggml.merges", array, strings(["a b"])),
        ("tokenizer.ggml.token_type", array, struct.pack("<IQ14i", 5, 14, 3, *[1] * 13)),
        ("tokenizer.ggml.eos_token_id", number, struct.pack("<I", 0)),
    ]
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    names |= {
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    tensors = []
    for name, tensor in model.state_dict().items():
        value, short = tensor.numpy(), name
        for long, part in names.items():
            short = short.replace(long, part)
        short = short.replace("model.layers", "blk").replace("model.embed_tokens", "token_embd")
        short = short.replace("model.norm", "output_norm")
        if "lm_head" in name:
            continue
        heads = {"attn_q": 4, "attn_k": 2}.get(short.split(".")[-2])
        if heads:  # GGUF interleaves the two halves of each head's rotary pairs
            value = value.reshape(heads, 2, -1, 32).swapaxes(1, 2).reshape(value.shape)
        tensors.append((short, value.shape, 0, np.ascontiguousarray(value).tobytes()))
    write_gguf(path, pairs, tensors)
    return model


def test_a_gguf_llama_becomes_the_same_transformers_model(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "cache"))
    expected = llama_gguf(tmp_path / "small.gguf")
    loaded = models.load(str(tmp_path / "small.gguf"))
    ids = torch.randint(0, 14, (2, 6), generator=torch.Generator().manual_seed(0))
    loaded.model.eval()
    assert torch.equal(loaded.model(ids).logits, expected(ids).logits)
    assert loaded.label == "small, dequantised from F32"
    assert loaded.tokenizer.encode("ab12") == [3, 5, 6]  # merged letters, single digits
    assert loaded.tokenizer.decode([3, 5, 6, 0]) == "ab12"
    assert loaded.tokenizer.end_id == 0
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


def test_damaged_and_foreign_gguf_files_are_named(tmp_path):
    llama_gguf(tmp_path / "whole.gguf")
    raw = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "short.gguf").write_bytes(raw[:200])
    with pytest.raises(UserError, match="cut short"):
        gguf_decode.GGUFFile(tmp_path / "short.gguf")
    (tmp_path / "tail.gguf").write_bytes(raw[:-64])
    with pytest.raises(UserError, match="cut short at tensor"):
        gguf_decode.convert(tmp_path / "tail.gguf", tmp_path)
    write_gguf(tmp_path / "other.gguf", [("general.architecture", 8, text("mamba"))], [])
    with pytest.raises(UserError, match="'mamba' is not supported"):
        gguf_decode.convert(tmp_path / "other.gguf", tmp_path)
    write_gguf(tmp_path / "odd.gguf", [], [("w", (32,), 14, b"\0" * 32)])
    with pytest.raises(UserError, match="block format number 14"):
        gguf_decode.GGUFFile(tmp_path / "odd.gguf").tensor("w")
