"""Every operation of the core ATen set is lowered or listed with its reason, and none is both."""

import torch

import linstock.bridge.lower.aten  # noqa: F401  registers the rows
from linstock.bridge.lower._rows import ROWS
from linstock.bridge.lower.aten._not_yet import NOT_YET


def core_overloads():
    """Every overload with the tag of the core set, as `aten.add.Tensor`."""
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace != "aten" or not hasattr(torch.ops.aten, name):
            continue
        packet = getattr(torch.ops.aten, name)
        overload = schema.overload_name or "default"
        if overload in packet.overloads():
            found = getattr(packet, overload)
            if torch.Tag.core in found.tags:
                yield str(found)


def operation(overload):
    return ".".join(overload.split(".")[:2])


CORE = sorted(set(core_overloads()))


def is_lowered(overload):
    return overload in ROWS or operation(overload) in ROWS


def test_the_core_set_is_found():
    assert "aten.add.Tensor" in CORE
    assert len(CORE) > 150


def test_every_core_operation_is_lowered_or_listed_with_a_reason():
    unknown = [o for o in CORE if not is_lowered(o) and operation(o) not in NOT_YET]
    assert unknown == []


def test_no_operation_is_both_lowered_and_listed():
    assert [key for key in NOT_YET if key in ROWS] == []


def test_every_listed_operation_is_a_core_operation_with_a_reason():
    assert {operation(o) for o in CORE} >= set(NOT_YET)
    assert all(NOT_YET.values())
