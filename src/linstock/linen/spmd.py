"""Logical axes and the sharding they lead to, under the name that `flax.linen.spmd` has."""

from linstock.core.spmd import get_logical_axis_rules as get_logical_axis_rules
from linstock.linen._spmd import LogicallyPartitioned as LogicallyPartitioned
from linstock.linen._spmd import RulesFallback as RulesFallback
from linstock.linen._spmd import logical_to_mesh as logical_to_mesh
from linstock.linen._spmd import logical_to_mesh_axes as logical_to_mesh_axes
from linstock.linen._spmd import logical_to_mesh_sharding as logical_to_mesh_sharding
from linstock.linen._spmd import with_logical_constraint as with_logical_constraint
from linstock.linen._spmd import with_logical_partitioning as with_logical_partitioning
from linstock.typing import Array as Array
from linstock.typing import ArrayPytree as ArrayPytree
from linstock.typing import LogicalNames as LogicalNames
from linstock.typing import LogicalPartitionSpec as LogicalPartitionSpec
from linstock.typing import LogicalPartitionSpecPytree as LogicalPartitionSpecPytree
from linstock.typing import LogicalRules as LogicalRules
