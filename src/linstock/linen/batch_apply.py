"""BatchApply: several leading axes taken for one."""

from linstock.linen._batch_apply import BatchApply as BatchApply
from linstock.linen._batch_apply import arbitrary_mergeable_leaf as arbitrary_mergeable_leaf
from linstock.linen._batch_apply import merge_leading_dims as merge_leading_dims
from linstock.linen._batch_apply import ndim_at_least as ndim_at_least
from linstock.linen._batch_apply import split_leading_dim as split_leading_dim
