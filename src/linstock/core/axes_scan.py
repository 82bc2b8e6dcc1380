"""`scan` over any axes, under the name that `flax.core.axes_scan` has."""

from linstock.core._axes_scan import broadcast as broadcast
from linstock.core._axes_scan import scan as scan
