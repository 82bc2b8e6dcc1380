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
from linstock.bridge.port._weights import WeightMap as WeightMap
from linstock.bridge.port._weights import WeightRow as WeightRow
from linstock.bridge.verify._verify import OutputError as OutputError
from linstock.bridge.verify._verify import Report as Report
