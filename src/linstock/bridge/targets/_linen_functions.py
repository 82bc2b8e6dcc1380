"""Functions that an emitted file defines where it uses them: initializers that Linen lacks."""

FUNCTIONS = {
    "uniform_kernel": (
        'uniform_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")'
    ),
    "fan_in_uniform": '''def fan_in_uniform(fan_in):
    """Draws evenly within 1 / sqrt(fan_in) of zero, as PyTorch's layers do."""
    return draw_uniform(-(fan_in**-0.5), fan_in**-0.5)''',
    "draw_uniform": '''def draw_uniform(low, high):
    """Draws evenly from `low` to `high`."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, low, high
    )''',
    "draw_normal": '''def draw_normal(mean, stddev):
    """Draws from a normal distribution around `mean`."""
    return lambda key, shape, dtype=jnp.float32: (
        mean + stddev * jax.random.normal(key, shape, dtype)
    )''',
    "zero_row": '''def zero_row(initializer, row):
    """Draws as `initializer` does, and sets one row to zero."""
    return lambda key, shape, dtype=jnp.float32: (
        initializer(key, shape, dtype).at[row].set(0)
    )''',
}
# What each of them uses: functions before it, and libraries.
USES = {
    "uniform_kernel": ("nn",),
    "fan_in_uniform": ("draw_uniform",),
    **dict.fromkeys(("draw_uniform", "draw_normal"), ("jax", "jnp")),
    "zero_row": ("jnp",),
}
