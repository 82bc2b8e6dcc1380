"""Dropout."""

from linstock.linen._dropout import Dropout as Dropout
from linstock.linen._merge import merge_param as merge_param
from linstock.linen._methods import compact as compact
from linstock.linen._module import Module as Module
from linstock.typing import PRNGKey as PRNGKey
