"""Lifted transformations of modules, under the names that `flax.linen.transforms` has."""

from linstock.linen._fingerprint import HashableModule as _HashableProxy  # noqa: F401
from linstock.linen._lifting import Target as Target
from linstock.linen._lifting import lift_transform as lift_transform
from linstock.linen._module import Module as Module
from linstock.linen._transforms import add_metadata_axis as add_metadata_axis
from linstock.linen._transforms import checkpoint as checkpoint
from linstock.linen._transforms import cond as cond
from linstock.linen._transforms import custom_vjp as custom_vjp
from linstock.linen._transforms import fold_rngs as fold_rngs
from linstock.linen._transforms import grad as grad
from linstock.linen._transforms import jit as jit
from linstock.linen._transforms import jvp as jvp
from linstock.linen._transforms import map_variables as map_variables
from linstock.linen._transforms import named_call as named_call
from linstock.linen._transforms import remat as remat
from linstock.linen._transforms import remat_scan as remat_scan
from linstock.linen._transforms import scan as scan
from linstock.linen._transforms import switch as switch
from linstock.linen._transforms import value_and_grad as value_and_grad
from linstock.linen._transforms import vjp as vjp
from linstock.linen._transforms import vmap as vmap
from linstock.linen._transforms import while_loop as while_loop
from linstock.typing import InOutAxis as InOutAxis
from linstock.typing import InOutScanAxis as InOutScanAxis
