"""The older interface of logical axes, under the name that `flax.linen.partitioning` has."""

from linstock.core import _spmd as _rules
from linstock.linen import _spmd
from linstock.linen._partitioning import AxisMetadata as AxisMetadata
from linstock.linen._partitioning import PartitionedVariable as PartitionedVariable
from linstock.linen._partitioning import get_axis_names as get_axis_names
from linstock.linen._partitioning import param_with_axes as param_with_axes
from linstock.linen._partitioning import variable_with_axes as variable_with_axes
from linstock.linen._partitioning_lift import core_remat_static as core_remat_static
from linstock.linen._partitioning_lift import remat as remat
from linstock.linen._partitioning_lift import scan_with_axes as scan_with_axes
from linstock.linen._partitioning_lift import vmap_with_axes as vmap_with_axes
from linstock.linen._spmd import RulesFallback as RulesFallback
from linstock.linen._spmd import logical_to_mesh as logical_to_mesh
from linstock.linen._spmd import logical_to_mesh_axes as logical_to_mesh_axes
from linstock.typing import Array as Array
from linstock.typing import ArrayPytree as ArrayPytree
from linstock.typing import In, Out
from linstock.typing import InOutAxis as InOutAxis
from linstock.typing import InOutScanAxis as InOutScanAxis
from linstock.typing import LogicalPartitionSpec as LogicalPartitionSpec
from linstock.typing import LogicalPartitionSpecPytree as LogicalPartitionSpecPytree
from linstock.typing import LogicalRules as LogicalRules
from linstock.typing import PartitionSpecPytree as PartitionSpecPytree

ScanIn = In
ScanOut = Out
axis_rules = _rules.logical_axis_rules
get_axis_rules = _rules.get_logical_axis_rules
set_axis_rules = _rules.set_logical_axis_rules
with_sharding_constraint = _spmd.with_logical_constraint
