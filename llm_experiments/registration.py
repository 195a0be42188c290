"""Makes our tuners known to peft, which keeps its methods in a closed enumeration.

`peft.utils.register_peft_method` accepts only names that are members of the `PeftType` enumeration, so a
tuner that lives outside peft has to add its member first. Python offers no public way to extend an
enumeration; the private attributes that this needs differ between 3.11, 3.12 and 3.13 and are touched in
this file alone.
"""

from __future__ import annotations

from enum import Enum

from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType


def add_member(enumeration: type[Enum], name: str) -> Enum:
    """Adds the member `name` with the value `name` to a string enumeration and returns it.

    Args:
        enumeration: an enumeration whose members are strings (`class E(str, Enum)`).
        name: upper-case name; an existing member of that name is returned unchanged.

    Raises:
        ValueError: the name is no upper-case identifier, or the enumeration does not hold strings.
    """
    if name in enumeration.__members__:
        return enumeration.__members__[name]
    if not (name.isidentifier() and name.isupper()):
        msg = f"name must be an upper-case identifier; got {name!r}"
        raise ValueError(msg)
    if not issubclass(enumeration, str):
        msg = f"enumeration must hold strings; got {enumeration.__name__}"
        raise ValueError(msg)
    member = str.__new__(enumeration, name)
    member._name_ = name
    member._value_ = name
    member._sort_order_ = len(enumeration._member_names_)
    member.__objclass__ = enumeration
    enumeration._member_names_.append(name)
    enumeration._member_map_[name] = member
    enumeration._value2member_map_[name] = member
    if hasattr(enumeration, "_hashable_values_"):  # from 3.12 on, consulted by `value in enumeration`
        enumeration._hashable_values_.append(name)
    # The metaclass refuses to assign a name that is already in the member map, hence `type`'s own setter.
    type.__setattr__(enumeration, name, member)
    return member


def register_tuner(name: str, config_cls: type, model_cls: type) -> None:
    """Registers a tuner package with peft under `name` (lower case); doing it twice changes nothing."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    member = add_member(PeftType, name.upper())
    if PEFT_TYPE_TO_CONFIG_MAPPING.get(member) is config_cls:
        return
    register_peft_method(name=name, config_cls=config_cls, model_cls=model_cls, prefix=f"{name}_")
