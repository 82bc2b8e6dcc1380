"""Layer pairs: torch layers and their Linen twins, as rows that are read both ways.

A row (`Pair`) names the torch classes, the kind of the Linen layer, and

- its *settings* under the names of both constructors, each with a converter and its inverse; an
  argument that Linen does not have says how it is recovered (from a variable's shape or the
  input's), one that must have a certain value says why, one that does not matter says so;
- its *weights*, each with the moves between tensor and variable (permute, part, split, join), which
  are undone bit for bit;
- its *call*, an object that writes the call in either direction, with a builder whose logical axes
  are the source's. Rows share a few kinds, such as `OverLastAxis` and `ChannelsLast`.

`pair.read(module)` gives the arguments that a torch layer's constructor was given, `pair.to_linen`
the fields of its twin, and `pair.to_torch` the arguments again, from the fields and the shapes of
the variables. The files are the families of layers; a new row stands in its family's `ROWS`, and a
test says which arguments of its constructor it has forgotten.
"""

from linstock.bridge.layers._calls import Build as Build
from linstock.bridge.layers._calls import CallKind as CallKind
from linstock.bridge.layers._calls import Layer as Layer
from linstock.bridge.layers._calls import LayerCall as LayerCall
from linstock.bridge.layers._calls import channels_last_order as channels_last_order
from linstock.bridge.layers._conv import PAD_MODES as PAD_MODES
from linstock.bridge.layers._converters import OneMinus as OneMinus
from linstock.bridge.layers._converters import same_or_tuple as same_or_tuple
from linstock.bridge.layers._moves import Join as Join
from linstock.bridge.layers._moves import Move as Move
from linstock.bridge.layers._moves import Part as Part
from linstock.bridge.layers._moves import Permute as Permute
from linstock.bridge.layers._moves import Split as Split
from linstock.bridge.layers._moves import Stack as Stack
from linstock.bridge.layers._pair import NOT_TRAIN as NOT_TRAIN
from linstock.bridge.layers._pair import Pair as Pair
from linstock.bridge.layers._pair import Weight as Weight
from linstock.bridge.layers._table import PAIRS as PAIRS
from linstock.bridge.layers._table import find_pair as find_pair
from linstock.bridge.layers._weight_row import WeightRow as WeightRow
