"""Handles on variables, under the name that `flax.core.variables` has."""

from linstock.core._variable import Variable as Variable
