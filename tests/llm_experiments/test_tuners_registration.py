"""Registration of tuners with peft's closed enumeration."""

import enum
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from peft.utils.peft_types import PeftType

import llm_experiments.tuners  # noqa: F401 - registers
from llm_experiments.registration import add_member


def test_added_member_behaves_like_the_others():
    class Colour(str, enum.Enum):  # noqa: UP042 - the shape of peft's own enumeration
        RED = "RED"

    member = add_member(Colour, "GREEN")
    assert member is Colour.GREEN is Colour("GREEN") is Colour["GREEN"]
    assert member == "GREEN" and member.name == "GREEN" and member.value == "GREEN"
    assert list(Colour) == [Colour.RED, Colour.GREEN] and len(Colour) == 2
    assert "GREEN" in list(Colour) and member in Colour and isinstance(member, Colour)
    assert json.dumps({"kind": member}) == '{"kind": "GREEN"}'
    assert hash(member) == hash("GREEN") and {member: 1}["GREEN"] == 1
    assert add_member(Colour, "GREEN") is member and len(Colour) == 2
    with pytest.raises(ValueError):
        Colour("BLUE")


def test_bad_names_and_enumerations_are_refused():
    class Number(enum.Enum):
        ONE = 1

    with pytest.raises(ValueError, match="upper-case identifier"):
        add_member(PeftType, "not a name")
    with pytest.raises(ValueError, match="must hold strings"):
        add_member(Number, "TWO")


def test_our_tuners_are_members_of_peft():
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    assert PeftType("S2FT") in PEFT_TYPE_TO_CONFIG_MAPPING and PeftType("S2FT") in PEFT_TYPE_TO_TUNER_MAPPING


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_private_attributes_are_the_same_in_other_versions_of_python(version):
    """Runs `add_member` alone, cut out of its module, because peft is not installed for other versions."""
    import inspect

    python = sys.executable if version == f"{sys.version_info[0]}.{sys.version_info[1]}" else None
    python = python or shutil.which(f"python{version}")
    works = python and subprocess.run([python, "-c", ""], capture_output=True, env=os.environ).returncode == 0
    if not works:
        pytest.skip(f"no interpreter python{version} on this machine")
    program = (
        "from enum import Enum\nimport enum, copy, pickle\n"
        + inspect.getsource(add_member)
        + textwrap.dedent("""
        class Colour(str, Enum):
            RED = "RED"
        member = add_member(Colour, "GREEN")
        assert member is Colour.GREEN is Colour("GREEN") is Colour["GREEN"]
        assert "GREEN" in list(Colour) and member in Colour and len(Colour) == 2
        assert copy.deepcopy(member) is member
        assert repr(member) == "<Colour.GREEN: 'GREEN'>"
        """)
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
