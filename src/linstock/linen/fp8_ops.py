"""Layers and functions of 8-bit floating point."""

from linstock.linen._fp8 import OVERWRITE_WITH_GRADIENT as OVERWRITE_WITH_GRADIENT
from linstock.linen._fp8 import Fp8DirectDotGeneralOp as Fp8DirectDotGeneralOp
from linstock.linen._fp8 import Fp8DotGeneral as Fp8DotGeneral
from linstock.linen._fp8 import Fp8DotGeneralBase as Fp8DotGeneralBase
from linstock.linen._fp8 import Fp8DotGeneralOp as Fp8DotGeneralOp
from linstock.linen._fp8 import Fp8Einsum as Fp8Einsum
from linstock.linen._fp8 import NANOOFp8DotGeneralOp as NANOOFp8DotGeneralOp
from linstock.linen._fp8_functions import compute_amax_history as compute_amax_history
from linstock.linen._fp8_functions import compute_scale as compute_scale
from linstock.linen._fp8_functions import dequantize as dequantize
from linstock.linen._fp8_functions import dot_general_transpose_lhs as dot_general_transpose_lhs
from linstock.linen._fp8_functions import dot_general_transpose_rhs as dot_general_transpose_rhs
from linstock.linen._fp8_functions import dot_general_with_precision as dot_general_with_precision
from linstock.linen._fp8_functions import (
    dot_general_with_precision_jvp as dot_general_with_precision_jvp,
)
from linstock.linen._fp8_functions import fp8_scaled_dot_general as fp8_scaled_dot_general
from linstock.linen._fp8_functions import get_fp8_max as get_fp8_max
from linstock.linen._fp8_functions import in_q as in_q
from linstock.linen._fp8_functions import in_q_bwd as in_q_bwd
from linstock.linen._fp8_functions import in_q_fwd as in_q_fwd
from linstock.linen._fp8_functions import in_qdq as in_qdq
from linstock.linen._fp8_functions import in_qdq_bwd as in_qdq_bwd
from linstock.linen._fp8_functions import in_qdq_fwd as in_qdq_fwd
from linstock.linen._fp8_functions import out_dq as out_dq
from linstock.linen._fp8_functions import out_dq_bwd as out_dq_bwd
from linstock.linen._fp8_functions import out_dq_fwd as out_dq_fwd
from linstock.linen._fp8_functions import out_qdq as out_qdq
from linstock.linen._fp8_functions import out_qdq_bwd as out_qdq_bwd
from linstock.linen._fp8_functions import out_qdq_fwd as out_qdq_fwd
from linstock.linen._fp8_functions import qdq as qdq
from linstock.linen._fp8_functions import quantize as quantize
from linstock.linen._fp8_functions import quantize_dequantize_update as quantize_dequantize_update
from linstock.linen._fp8_functions import quantized_dot as quantized_dot
from linstock.linen._fp8_functions import quantized_dot_bwd as quantized_dot_bwd
from linstock.linen._fp8_functions import quantized_dot_fwd as quantized_dot_fwd
from linstock.linen._fp8_functions import update_fp8_meta as update_fp8_meta
from linstock.linen._fp8_meta import CAN_USE_EARRAY as CAN_USE_EARRAY
from linstock.linen._fp8_meta import Fp8MetaTyRules as Fp8MetaTyRules
from linstock.linen._fp8_meta import fm32 as fm32
from linstock.linen._fp8_meta import fp8_meta_dtype as fp8_meta_dtype
from linstock.linen._fp8_meta import fp8_meta_dtype_wrapper as fp8_meta_dtype_wrapper
from linstock.linen._fp8_meta import fp32_max_grad as fp32_max_grad
