"""Pooling over windows."""

from linstock.core.nn._pooling import avg_pool as avg_pool
from linstock.core.nn._pooling import max_pool as max_pool
from linstock.core.nn._pooling import min_pool as min_pool
from linstock.core.nn._pooling import pool as pool
