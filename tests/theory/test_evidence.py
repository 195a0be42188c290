"""Evidence earns its status, certificates survive a round trip, and no altered certificate passes."""

from __future__ import annotations

import copy
import json
from fractions import Fraction

import pytest

from theory import registry, verdicts
from theory.claim import Claim, Control, Reading, Repair, Setting, Source
from theory.evidence import CheckFails, Context, Counterexample, Custom, Identity, Open, Search, recheck
from theory.protocol import Instance


def commutes(k, x):
    k.given("A psd", k.psd(x.A))
    k.claim("A B = B A", k.eq(x.A @ x.B, x.B @ x.A))


def norm_bound(k, x):
    k.claim("|A|_F^2 <= |B|_F^2", k.le(k.fro2(x.A), k.fro2(x.B)))


SETTING = Setting(
    dims=[{"n": 1}, {"n": 2}],
    free=lambda d: {"A": (d["n"], d["n"]), "B": (d["n"], d["n"])},
    build=lambda k, t, d: Instance(A=t.A @ t.A.T, B=t.B),
)
WITNESS = {"A": [["1", "0"], ["0", "0"]], "B": [["0", "1"], ["0", "0"]]}


def context(statement=commutes) -> Context:
    return Context("test/claim [as printed]", statement, SETTING)


def test_a_counterexample_is_refuted_and_its_certificate_rechecks() -> None:
    evidence = Counterexample(WITNESS)
    status, certificate = evidence.establish(context())
    assert status == "refuted" and certificate["breaks"] == ["A B = B A"]
    assert recheck(evidence, context(), json.loads(json.dumps(certificate))) == "refuted"


def test_an_instance_that_breaks_a_hypothesis_is_no_counterexample() -> None:
    broken = {"A": [["-1", "0"], ["0", "0"]], "B": WITNESS["B"]}
    with pytest.raises(CheckFails, match="A psd"):
        Counterexample(broken).establish(context())


def test_an_instance_that_breaks_nothing_is_no_counterexample() -> None:
    with pytest.raises(CheckFails, match="breaks no conclusion"):
        Counterexample({"A": [["1"]], "B": [["2"]]}).establish(context())


@pytest.mark.parametrize("part", ["instance", "sides", "breaks", "digest"])
def test_altering_any_entry_of_a_certificate_makes_it_fail(part: str) -> None:
    evidence = Counterexample({"A": [["2"]], "B": [["1"]]})
    _, certificate = evidence.establish(context(norm_bound))
    altered = copy.deepcopy(certificate)
    altered[part] = {
        "instance": {"A": [["3"]], "B": [["1"]]},
        "sides": {"|A|_F^2 <= |B|_F^2": ["5", "1"]},
        "breaks": ["something else"],
        "digest": "0" * 64,
    }[part]
    with pytest.raises(CheckFails):
        recheck(evidence, context(norm_bound), altered)


def test_identity_testing_proves_within_and_refuses_a_false_identity() -> None:
    def product(k, x):
        k.claim("tr AB = tr BA", k.eq(k.tr(x.A @ x.B), k.tr(x.B @ x.A)))

    dims = [{"n": 2}, {"n": 3}]
    status, certificate = Identity(dims).establish(context(product))
    assert status == "proved_within"
    assert all(size["error_below"].startswith("2^-1") for size in certificate["checked"])
    with pytest.raises(CheckFails, match="the identity fails"):
        Identity(dims).establish(context(lambda k, x: k.claim("AB = BA", k.eq(x.A @ x.B, x.B @ x.A))))


def test_identity_testing_takes_its_point_from_the_source_of_the_claim() -> None:
    from theory.evidence import _hashed_point

    one = _hashed_point(context(commutes), {"n": 2}, 0, 8)
    assert one == _hashed_point(context(commutes), {"n": 2}, 0, 8)
    assert one != _hashed_point(context(commutes), {"n": 2}, 1, 8)
    assert one != _hashed_point(context(norm_bound), {"n": 2}, 0, 8)
    assert max(one) > 2**60


def test_custom_evidence_is_decided_by_its_payload() -> None:
    evidence = Custom("proved", lambda: {"n": 6}, lambda p: None if p["n"] % 2 == 0 else "odd", "parity")
    status, certificate = evidence.establish(context())
    assert status == "proved"
    certificate["payload"]["n"] = 7
    with pytest.raises(CheckFails, match="odd"):
        recheck(evidence, context(), certificate)


def test_samples_and_open_questions_never_earn_more() -> None:
    assert Search("statistical").establish(context()) == ("supported", None)
    assert Open("the text is missing").establish(context()) == ("undecided", None)


def claim(reading: Reading) -> Claim:
    return Claim(
        "test/claim", Source("none", "nowhere", "0"), "A sentence.", "A headline.", [reading], SETTING
    )


def test_a_false_control_that_is_not_refuted_fails_the_claim() -> None:
    weak = Control("nothing changed", instance={"A": [["1"]], "B": [["1"]]})
    reading = Reading("as printed", Search("none"), statement=commutes, controls=[weak])
    with pytest.raises(CheckFails, match="not refuted on its instance"):
        verdicts.verdict(claim(reading), reading, {})


def test_a_false_control_must_spare_the_claim() -> None:
    tight = Control("smaller right side", instance={"A": [["2"]], "B": [["1"]]}, tighten="1/50")
    reading = Reading("as printed", Search("none"), statement=norm_bound, controls=[tight])
    with pytest.raises(CheckFails, match="refutes the claim itself"):
        verdicts.verdict(claim(reading), reading, {})


def test_a_search_that_refutes_overrules_the_evidence() -> None:
    reading = Reading("as printed", Search("none"), statement=commutes)
    with pytest.raises(CheckFails, match="a search refutes it"):
        verdicts.verdict(claim(reading), reading, {"as printed": {"found": {"instance": WITNESS}}})


def test_a_repair_that_the_counterexample_breaks_is_refused() -> None:
    reading = Reading(
        "as printed",
        Counterexample(WITNESS),
        statement=commutes,
        repair=Repair("the same again", Search("none"), statement=commutes),
    )
    with pytest.raises(CheckFails, match="breaks the repair too"):
        verdicts.verdict(claim(reading), reading, {})


def test_an_added_hypothesis_must_be_shown_necessary() -> None:
    def repaired(k, x):
        k.given("B = 0", k.eq(k.fro2(x.B), k.num(0)))
        commutes(k, x)

    def reading(instance):
        repair = Repair("only for B = 0", Search("none"), statement=repaired, necessary={"B = 0": instance})
        return Reading("as printed", Counterexample(WITNESS), statement=commutes, repair=repair)

    shown = reading(WITNESS)
    assert verdicts.verdict(claim(shown), shown, {})["repair"]["necessary"] == {"B = 0": WITNESS}
    harmless = reading({"A": [["1"]], "B": [["1"]]})
    with pytest.raises(CheckFails, match="not shown necessary"):
        verdicts.verdict(claim(harmless), harmless, {})


def test_the_exact_ratio_of_an_inequality_is_reported() -> None:
    assert verdicts.ratio(norm_bound, {"A": [["1"]], "B": [["2"]]}) == str(Fraction(1, 4))
    assert verdicts.ratio(norm_bound, {"A": [["1"]], "B": [["0"]]}) == "unbounded"


def test_every_registered_claim_lies_in_its_folder_and_uses_known_ids() -> None:
    known = set(registry.claim_ids())
    for name, entry in registry.registered().items():
        assert entry.path.parent.name == name.split("/")[0]
        assert set(entry.claim.uses) <= known, f"{name} rests on unknown claims"


def test_an_unknown_id_is_answered_with_near_ones() -> None:
    with pytest.raises(registry.UnknownClaim, match="s2ft/lemma_f14_left"):
        registry.find("s2ft/lemma_f14_lef")
