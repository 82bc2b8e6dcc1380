"""Looking into a running model: shapes, nonfinite numbers, who called whom, breakpoints."""

from linstock.debug._breakpoints import Stop as Stop
from linstock.debug._breakpoints import breakpoint_at as breakpoint_at
from linstock.debug._nonfinite import NonfiniteSearch as NonfiniteSearch
from linstock.debug._nonfinite import find_nonfinite as find_nonfinite
from linstock.debug._nonfinite_findings import Finding as Finding
from linstock.debug._scope_tree import ScopeNode as ScopeNode
from linstock.debug._scope_tree import scope_tree as scope_tree
from linstock.debug._trace_shapes import CallRow as CallRow
from linstock.debug._trace_shapes import ShapeTrace as ShapeTrace
from linstock.debug._trace_shapes import trace_shapes as trace_shapes
