"""Which trace of JAX is running, under the name that `flax.core.tracers` has."""

from linstock.core._tracers import check_trace_level as check_trace_level
from linstock.core._tracers import current_trace as current_trace
