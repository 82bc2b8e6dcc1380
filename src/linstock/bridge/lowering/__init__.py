"""The tables of lowerings, a file a family; importing this package registers them all."""

from linstock.bridge.lowering import (
    attention as attention,
    conv as conv,
    create as create,
    elementwise as elementwise,
    index as index,
    matmul as matmul,
    norm as norm,
    pool as pool,
    random as random,
    reduce as reduce,
    shape as shape,
)
