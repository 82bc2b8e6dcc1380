"""Functional dropout."""

from linstock.core.nn._stochastic import dropout as dropout
