"""Dropout."""

from linstock.linen._dropout import Dropout as Dropout
