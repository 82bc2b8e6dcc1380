"""Dataclasses with fields that only keywords fill."""

from linstock.linen._kw_only import KW_ONLY as KW_ONLY
from linstock.linen._kw_only import dataclass as dataclass
from linstock.linen._kw_only import field as field
