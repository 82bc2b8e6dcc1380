"""FrozenDict and functions for nested dicts, under the name that `flax.core.frozen_dict` has."""

from linstock.core._frozen_dict import FrozenDict as FrozenDict
from linstock.core._frozen_dict import FrozenKeysView as FrozenKeysView
from linstock.core._frozen_dict import FrozenValuesView as FrozenValuesView
from linstock.core._frozen_dict import copy as copy
from linstock.core._frozen_dict import freeze as freeze
from linstock.core._frozen_dict import pop as pop
from linstock.core._frozen_dict import pretty_repr as pretty_repr
from linstock.core._frozen_dict import unfreeze as unfreeze
