"""Sequential."""

from linstock.linen._combinators import Sequential as Sequential
from linstock.linen._methods import compact as compact
from linstock.linen._module import Module as Module
