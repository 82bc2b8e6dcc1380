"""Sequential."""

from linstock.linen._combinators import Sequential as Sequential
