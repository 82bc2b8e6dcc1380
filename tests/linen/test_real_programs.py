"""What programs from outside do around modules; each claim was met in a package that uses Flax."""

import importlib

import pytest

IMPORTS = {
    "linen.activation": "Array Dtype Module compact tanh",
    "linen.attention": "Array Dtype Initializer Module PRNGKey PrecisionLike Shape compact "
    "default_kernel_init dot_product_attention_weights initializers merge_param promote_dtype",
    "linen.dtypes": "Dtype canonicalize_dtype promote_dtype",
    "linen.initializers": "Initializer lecun_normal normal uniform zeros",
    "linen.linear": "Array ConvGeneralDilatedT DotGeneralT Dtype Initializer LaxPadding Module "
    "PRNGKey PaddingLike PrecisionLike Shape canonicalize_padding compact default_kernel_init "
    "initializers promote_dtype",
    "linen.module": "Module PRNGKey compact merge_param",
    "linen.normalization": "Array Axes Dtype Initializer Module PRNGKey Shape _canonicalize_axes "
    "_compute_stats _normalize canonicalize_dtype compact merge_param",
    "linen.recurrent": "Array Dtype Initializer Module PRNGKey compact promote_dtype",
    "linen.stochastic": "Dropout Module PRNGKey compact merge_param",
    "linen.transforms": "InOutAxis InOutScanAxis Module",
    "core.scope": "CollectionFilter DenyList FrozenVariableDict Scope VariableDict",
    "training.dynamic_scale": "DynamicScale",
}


@pytest.mark.parametrize("library", ["flax", "linstock"])
@pytest.mark.parametrize("path", IMPORTS)
def test_submodules_have_the_names_that_packages_import(library, path):
    module = importlib.import_module(f"{library}.{path}")
    assert {name for name in IMPORTS[path].split() if not hasattr(module, name)} == set()
