"""Lifted transformations of functions of scopes, under the names that `flax.core.lift` has."""

from linstock.core._filters import CollectionFilter as CollectionFilter
from linstock.core._filters import PRNGSequenceFilter as PRNGSequenceFilter
from linstock.core._lift import pack as pack
from linstock.core._lift_control import cond as cond
from linstock.core._lift_control import switch as switch
from linstock.core._lift_control import while_loop as while_loop
from linstock.core._lift_grad import custom_vjp as custom_vjp
from linstock.core._lift_grad import jvp as jvp
from linstock.core._lift_grad import value_and_grad as value_and_grad
from linstock.core._lift_grad import vjp as vjp
from linstock.core._lift_map import remat_scan as remat_scan
from linstock.core._lift_map import scan as scan
from linstock.core._lift_map import vmap as vmap
from linstock.core._lift_trace import checkpoint as checkpoint
from linstock.core._lift_trace import fold_rngs as fold_rngs
from linstock.core._lift_trace import jit as jit
from linstock.core._lift_trace import remat as remat
from linstock.core._lift_variables import id_fn as id_fn
from linstock.core._lift_variables import map_variables as map_variables
from linstock.core._lift_variables import swap_collection as swap_collection
from linstock.typing import In as In
from linstock.typing import InOutAxis as InOutAxis
from linstock.typing import InOutScanAxis as InOutScanAxis
from linstock.typing import Out as Out
