"""Checkpoints by step: saving, restoring, keeping the last ones and removing older ones.

They are written with Orbax or, with `config.flax_use_orbax_checkpointing` off, as one msgpack file;
both are read, whoever wrote them.
"""

from linstock.training._checkpoint_names import MP_ARRAY_POSTFIX as MP_ARRAY_POSTFIX
from linstock.training._checkpoint_names import ORBAX_CKPT_FILENAME as ORBAX_CKPT_FILENAME
from linstock.training._checkpoint_names import ORBAX_MANIFEST_OCDBT as ORBAX_MANIFEST_OCDBT
from linstock.training._checkpoint_names import ORBAX_METADATA_FILENAME as ORBAX_METADATA_FILENAME
from linstock.training._checkpoint_names import SCHEME_RE as SCHEME_RE
from linstock.training._checkpoint_names import SIGNED_FLOAT_RE as SIGNED_FLOAT_RE
from linstock.training._checkpoint_names import UNSIGNED_FLOAT_RE as UNSIGNED_FLOAT_RE
from linstock.training._checkpoint_names import available_steps as available_steps
from linstock.training._checkpoint_names import latest_checkpoint as latest_checkpoint
from linstock.training._checkpoint_names import natural_sort as natural_sort
from linstock.training._checkpoint_names import safe_normpath as safe_normpath
from linstock.training._checkpoints import AsyncManager as AsyncManager
from linstock.training._checkpoints import restore_checkpoint as restore_checkpoint
from linstock.training._checkpoints import save_checkpoint as save_checkpoint
from linstock.training._checkpoints import (
    save_checkpoint_multiprocess as save_checkpoint_multiprocess,
)
from linstock.training._pre_linen import MODULE_NUM_RE as MODULE_NUM_RE
from linstock.training._pre_linen import convert_pre_linen as convert_pre_linen
from linstock.training._process_arrays import COMMIT_SUCCESS_FILE as COMMIT_SUCCESS_FILE
from linstock.training._process_arrays import MP_ARRAY_PH as MP_ARRAY_PH
