"""The bridge between PyTorch and Flax Linen: `to_linen` and what it returns and raises."""

from linstock.bridge._conversion import Conversion as Conversion
from linstock.bridge._conversion import check_save as check_save
from linstock.bridge._convert import to_linen as to_linen
from linstock.bridge._errors import CaptureError as CaptureError
from linstock.bridge._errors import ConversionError as ConversionError
from linstock.bridge._errors import InputError as InputError
from linstock.bridge._errors import InternalError as InternalError
from linstock.bridge._errors import Missing as Missing
from linstock.bridge._errors import MissingLibraryError as MissingLibraryError
from linstock.bridge._errors import ModuleKindError as ModuleKindError
from linstock.bridge._errors import OutputExistsError as OutputExistsError
from linstock.bridge._errors import SaveError as SaveError
from linstock.bridge._errors import UnsupportedError as UnsupportedError
from linstock.bridge._reopen import Reopened as Reopened
from linstock.bridge.ir._differences import DIFFERENCES as DIFFERENCES
from linstock.bridge.ir._differences import Difference as Difference
from linstock.bridge.port._weights import WeightMap as WeightMap
from linstock.bridge.port._weights import WeightRow as WeightRow
from linstock.bridge.verify._module_table import ModuleRow as ModuleRow
from linstock.bridge.verify._module_table import ModuleTable as ModuleTable
from linstock.bridge.verify._report import Check as Check
from linstock.bridge.verify._report import OutputError as OutputError
from linstock.bridge.verify._report import Report as Report
