"""Logical axis rules, under the name that `flax.core.spmd` has."""

from linstock.core._spmd import get_logical_axis_rules as get_logical_axis_rules
from linstock.core._spmd import logical_axis_rules as logical_axis_rules
from linstock.core._spmd import set_logical_axis_rules as set_logical_axis_rules
from linstock.typing import LogicalRules as LogicalRules
