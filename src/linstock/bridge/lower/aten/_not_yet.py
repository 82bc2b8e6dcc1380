"""Operations of the core ATen set without a lowering, each with its reason."""

_BACKWARD = "it belongs to a backward pass, and JAX differentiates the converted model itself"
_STORAGE = "it describes memory, and a JAX array has no strides or storage"
_VALUES = "the size of its result, or the path taken, depends on values"
_SIZE = "sizes are read from the symbolic shapes and never lowered"
_DECOMPOSED = (
    "only decompositions make it, and capture keeps the operation that it comes from whole"
)

NOT_YET = {
    "aten._adaptive_avg_pool2d_backward": _BACKWARD,
    "aten._embedding_bag": _DECOMPOSED,
    "aten._fft_c2r": _DECOMPOSED,
    "aten._fft_r2c": _DECOMPOSED,
    "aten._local_scalar_dense": _VALUES,
    "aten._native_batch_norm_legit": _DECOMPOSED,
    "aten._native_batch_norm_legit_no_training": _DECOMPOSED,
    "aten._pdist_forward": "distances within one set of points are rare; `torch.cdist` is lowered",
    "aten.as_strided": _STORAGE,
    "aten.avg_pool2d_backward": _BACKWARD,
    "aten.convolution_backward": _BACKWARD,
    "aten.embedding_dense_backward": _BACKWARD,
    "aten.empty_strided": _STORAGE,
    "aten.max_pool2d_with_indices_backward": _BACKWARD,
    "aten.native_group_norm_backward": _BACKWARD,
    "aten.native_layer_norm_backward": _BACKWARD,
    "aten.nonzero": _VALUES,
    "aten.resize_": _STORAGE,
    "aten.sym_is_contiguous": _STORAGE,
    "aten.sym_numel": _SIZE,
    "aten.sym_size": _SIZE,
    "aten.sym_storage_offset": _STORAGE,
    "aten.sym_stride": _STORAGE,
}
