"""Metadata boxes, under the name that `flax.core.meta` has."""

from typing import Any, TypeVar

from linstock.core._meta import PARTITION_NAME as PARTITION_NAME
from linstock.core._meta import AxisMetadata as AxisMetadata
from linstock.core._meta import Partitioned as Partitioned
from linstock.core._meta import add_axis as add_axis
from linstock.core._meta import get_global_mesh as get_global_mesh
from linstock.core._meta import get_partition_spec as get_partition_spec
from linstock.core._meta import get_sharding as get_sharding
from linstock.core._meta import global_mesh_defined as global_mesh_defined
from linstock.core._meta import is_axis_metadata as is_axis_metadata
from linstock.core._meta import map_axis_meta as map_axis_meta
from linstock.core._meta import remove_axis as remove_axis
from linstock.core._meta import replace_boxed as replace_boxed
from linstock.core._meta import unbox as unbox
from linstock.core._meta import with_partitioning as with_partitioning

TAxisMetadata = TypeVar("TAxisMetadata", bound=AxisMetadata[Any])
