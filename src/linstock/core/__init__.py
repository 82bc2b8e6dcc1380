"""The floor below modules: scopes, collections, rng streams, frozen dicts, metadata boxes."""

from linstock import traceback_util as _traceback_util  # noqa: F401  # hides frames of linstock
from linstock.core import frozen_dict as frozen_dict
from linstock.core import meta as meta
from linstock.core._boundary import apply as apply
from linstock.core._boundary import bind as bind
from linstock.core._boundary import init as init
from linstock.core._filters import CollectionFilter as CollectionFilter
from linstock.core._filters import DenyList as DenyList
from linstock.core._filters import PRNGSequenceFilter as PRNGSequenceFilter
from linstock.core._filters import filter_to_set as filter_to_set
from linstock.core._filters import group_collections as group_collections
from linstock.core._filters import in_filter as in_filter
from linstock.core._filters import intersect_filters as intersect_filters
from linstock.core._filters import subtract_filters as subtract_filters
from linstock.core._filters import union_filters as union_filters
from linstock.core._frozen_dict import FrozenDict as FrozenDict
from linstock.core._frozen_dict import copy as copy
from linstock.core._frozen_dict import freeze as freeze
from linstock.core._frozen_dict import pop as pop
from linstock.core._frozen_dict import pretty_repr as pretty_repr
from linstock.core._frozen_dict import unfreeze as unfreeze
from linstock.core._lazy_init import lazy_init as lazy_init
from linstock.core._meta import AxisMetadata as AxisMetadata
from linstock.core._meta import map_axis_meta as map_axis_meta
from linstock.core._meta import unbox as unbox
from linstock.core._rng import LazyRng as LazyRng
from linstock.core._rng import is_valid_rng as is_valid_rng
from linstock.core._rng import is_valid_rngs as is_valid_rngs
from linstock.core._scope import Scope as Scope
from linstock.core._variable import Variable as Variable
