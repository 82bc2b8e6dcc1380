"""The tables of lowerings, a file a family; importing this package registers them all."""

from linstock.bridge.lower.aten import (
    activation as activation,
)
from linstock.bridge.lower.aten import (
    attention as attention,
)
from linstock.bridge.lower.aten import (
    conv as conv,
)
from linstock.bridge.lower.aten import (
    create as create,
)
from linstock.bridge.lower.aten import (
    elementwise as elementwise,
)
from linstock.bridge.lower.aten import (
    index as index,
)
from linstock.bridge.lower.aten import (
    loss as loss,
)
from linstock.bridge.lower.aten import (
    matmul as matmul,
)
from linstock.bridge.lower.aten import (
    mode as mode,
)
from linstock.bridge.lower.aten import (
    norm as norm,
)
from linstock.bridge.lower.aten import (
    pool as pool,
)
from linstock.bridge.lower.aten import (
    random as random,
)
from linstock.bridge.lower.aten import (
    reduce as reduce,
)
from linstock.bridge.lower.aten import (
    resize as resize,
)
from linstock.bridge.lower.aten import (
    sample as sample,
)
from linstock.bridge.lower.aten import (
    scatter as scatter,
)
from linstock.bridge.lower.aten import (
    shape as shape,
)
from linstock.bridge.lower.aten import (
    sort as sort,
)
