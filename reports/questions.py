"""The page for practitioners: questions that people ask, and the verdicts that answer them.

What stands here by hand is the questions and which claims and simulators speak to each. The answers are the
claims' own headlines, statuses and scopes, taken from the records.
"""

from __future__ import annotations

from dataclasses import dataclass

from reports import notation
from reports.claim_pages import SHORT, link
from reports.store import Record


@dataclass(frozen=True)
class Question:
    """A question, and what speaks to it.

    Attributes:
        text: as somebody would ask it.
        claims: ids, the most telling first.
        simulators: names of simulators.
    """

    text: str
    claims: tuple[str, ...]
    simulators: tuple[str, ...] = ()


QUESTIONS = (
    Question(
        "Is PEFT strictly weaker than full fine-tuning?",
        (
            "peft_vs_fft/thm_1_function_space",
            "peft_vs_fft/thm_1_inclusion",
            "peft_vs_fft/thm_1_density",
            "peft_vs_fft/thm_2_separation",
            "s2ft/thm_f10_bias",
        ),
        ("strict_subset", "capacity"),
    ),
    Question(
        "When does a method forget less?",
        (
            "s2ft/gain_equals_movement",
            "s2ft/phase_law",
            "s2ft/ood_crossover",
            "s2ft/cost_of_assumption_f5",
            "s2ft/thm_f8_s2ft",
            "s2ft/thm_f8_lora",
        ),
        ("ood_risk",),
    ),
    Question(
        "Does more rank help?",
        (
            "peft_vs_fft/thm_3_marginal",
            "peft_vs_fft/thm_3_critical_rank",
            "peft_vs_fft/thm_3_selection",
            "s2ft/lemma_f14_left",
        ),
        ("rank_saturation",),
    ),
    Question(
        "Which variants of LoRA converge?",
        (
            "lora_variants/thm_2_frozen",
            "lora_variants/thm_2_chain",
            "lora_variants/thm_2_fresh",
            "lora_variants/thm_2_cyclic",
            "peso/rac_5_3",
            "peso/lora_trap",
            "peso/thm_5_1_svd_restart",
            "peso/thm_5_1_stochastic",
        ),
        ("nonconvex_convergence", "peso_convergence"),
    ),
    Question(
        "Do the generalization bounds order the methods?",
        (
            "lora_variants/table_1",
            "lora_variants/tightness_c14",
            "peft_vs_fft/thm_5_slope",
            "peft_vs_fft/thm_5_risk",
            "peft_vs_fft/thm_5_rademacher",
        ),
        ("generalization_bounds",),
    ),
    Question(
        "Is PEFT more fragile under perturbations?",
        (
            "peft_vs_fft/thm_4_frozen",
            "peft_vs_fft/thm_4_reoptimised",
            "peft_vs_fft/thm_4_input_noise",
        ),
        ("perturbation",),
    ),
    Question(
        "With how few samples should I prefer PEFT?",
        ("peft_vs_fft/few_shot_crossover", "s2ft/thm_f13_variance"),
        ("few_shot_crossover",),
    ),
    Question(
        "Can adapters be merged, fused and switched without loss?",
        ("s2ft/switch_exactness", "s2ft/adapter_unmerge", "s2ft/fusion_orthogonality", "peso/anchor_offset"),
    ),
    Question(
        "What does S2FT's structure need of my model?",
        (
            "s2ft/coupled_ffn",
            "s2ft/coupled_mha",
            "s2ft/coupled_gqa",
            "s2ft/partial_backprop",
            "s2ft/parameter_parity",
        ),
    ),
    Question(
        "What should I monitor during training?",
        (
            "peso/thm_5_1_content",
            "peso/restart_count",
            "peso/state_alignment",
            "lora_variants/intruder_definition",
            "lora_variants/step_size_scaling",
        ),
        ("projection_spectrum",),
    ),
)


def answers(claims: dict[str, Record], simulators: list[Record]) -> list[Record]:
    """Return the questions with what the records say; a claim without a record is left out."""
    ran = {sim["name"]: sim for sim in simulators if sim["runs"]}
    return [
        {
            "text": question.text,
            "claims": [_answer(claims[name], name, claims) for name in question.claims if name in claims],
            "simulators": [
                {"name": name, "headline": ran[name]["headline"]}
                for name in question.simulators
                if name in ran
            ],
        }
        for question in QUESTIONS
    ]


def _answer(claim: Record, name: str, claims: dict[str, Record]) -> Record:
    return {
        "link": link(name, claims, ""),
        "headline": claim["headline"],
        "conditions": [
            f"{SHORT[verdict['status']]} ({verdict['reading']})"
            + (f": {notation.words(verdict['scope'])}" if verdict["scope"] else "")
            for verdict in claim["verdicts"]
        ],
        "repairs": [
            verdict["repair"]["statement"]
            for verdict in claim["verdicts"]
            if verdict["repair"] and isinstance(verdict["repair"]["statement"], str)
        ],
    }
