"""The tables of lowerings, a file a family; importing this package registers them all."""

from linstock.bridge.lowering import (
    activation as activation,
)
from linstock.bridge.lowering import (
    attention as attention,
)
from linstock.bridge.lowering import (
    conv as conv,
)
from linstock.bridge.lowering import (
    create as create,
)
from linstock.bridge.lowering import (
    elementwise as elementwise,
)
from linstock.bridge.lowering import (
    index as index,
)
from linstock.bridge.lowering import (
    loss as loss,
)
from linstock.bridge.lowering import (
    matmul as matmul,
)
from linstock.bridge.lowering import (
    norm as norm,
)
from linstock.bridge.lowering import (
    pool as pool,
)
from linstock.bridge.lowering import (
    random as random,
)
from linstock.bridge.lowering import (
    reduce as reduce,
)
from linstock.bridge.lowering import (
    resize as resize,
)
from linstock.bridge.lowering import (
    sample as sample,
)
from linstock.bridge.lowering import (
    scatter as scatter,
)
from linstock.bridge.lowering import (
    shape as shape,
)
from linstock.bridge.lowering import (
    sort as sort,
)
