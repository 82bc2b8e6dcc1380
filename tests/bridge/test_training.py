"""Training: `train=True` is PyTorch's train mode, and gradients and fresh variables agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import to_linen


def as_array(tensor):
    return jnp.array(tensor.detach().numpy())


def channels_last(tensor):
    return as_array(tensor.movedim(1, -1))


# ---- dropout


class Drops(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 64)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.fc(x))


@pytest.fixture(scope="module")
def drops(convert):
    torch.manual_seed(0)
    return convert(Drops(), torch.randn(2, 4))


def test_dropout_is_off_without_train(drops):
    x = jnp.ones((3, 4))
    one = drops.module.apply(drops.variables, x)
    two = drops.module.apply(drops.variables, x, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(one, two)
    assert not (one == 0).any()


def test_dropout_is_on_in_train_and_follows_its_key(drops):
    x = jnp.ones((3, 4))
    still = drops.module.apply(drops.variables, x)

    def run(seed):
        return drops.module.apply(
            drops.variables, x, train=True, rngs={"dropout": jax.random.key(seed)}
        )

    one, again, other = run(1), run(1), run(2)
    np.testing.assert_array_equal(one, again)
    assert (np.asarray(one) != np.asarray(other)).any()
    dropped = np.asarray(one == 0)
    # 192 draws at one half: six standard deviations on either side.
    assert 54 < dropped.sum() < 138
    np.testing.assert_allclose(
        np.asarray(one)[~dropped], 2 * np.asarray(still)[~dropped], rtol=1e-6
    )


def test_dropout_in_train_wants_its_key(drops):
    with pytest.raises(Exception, match="dropout"):
        drops.module.apply(drops.variables, jnp.ones((3, 4)), train=True)


def test_dropout_inside_attention_is_on_in_train(zoo):
    conversion = zoo("bert")
    tokens = jnp.arange(18, dtype=jnp.int32).reshape(2, 9)
    mask = jnp.ones((2, 9), jnp.int32)
    still = conversion.module.apply(conversion.variables, tokens, mask)
    moved = conversion.module.apply(
        conversion.variables, tokens, mask, train=True, rngs={"dropout": jax.random.key(0)}
    )
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(still, moved, strict=True))
    assert "dropout_rate=0.1" in conversion.source


# ---- batch norm

NORMS = [
    (nn.BatchNorm1d, (6, 3), 6),
    (nn.BatchNorm1d, (4, 3, 5), 20),
    (nn.BatchNorm2d, (2, 3, 4, 5), 40),
    (nn.BatchNorm3d, (2, 3, 2, 2, 3), 24),
]


@pytest.mark.parametrize(("cls", "shape", "count"), NORMS)
def test_batch_norm_trains_as_in_pytorch(cls, shape, count, convert):
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = cls(3, momentum=0.2, eps=1e-3)

        def forward(self, x):
            return self.bn(x) + 0

    model = Norm()
    x = torch.randn(shape) * 2 + 1
    conversion = convert(model, x, layout="torch")
    before = conversion.variables["batch_stats"]["bn"]
    model.train()
    expected = model(x)
    found, updates = conversion.module.apply(
        conversion.variables, as_array(x), train=True, mutable=["batch_stats"]
    )
    # Sums of few numbers in another order: a handful of last digits.
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-5)
    after = updates["batch_stats"]["bn"]
    np.testing.assert_allclose(after["mean"], model.bn.running_mean, rtol=1e-5, atol=1e-6)
    # PyTorch keeps the unbiased variance: n / (n - 1) times what this batch adds.
    biased = np.asarray(after["var"] - 0.8 * before["var"])
    unbiased = (model.bn.running_var - 0.8 * as_torch(before["var"])).numpy()
    np.testing.assert_allclose(unbiased, biased * count / (count - 1), rtol=1e-4)


def as_torch(array):
    return torch.from_numpy(np.array(array))


def test_a_step_moves_the_running_mean_of_every_layer(zoo, zoo_model):
    conversion = zoo("convnet")
    model, (x,), _ = zoo_model("convnet")
    model.train()
    model.dropout.eval()
    model(x)
    _, updates = conversion.module.apply(
        conversion.variables,
        channels_last(x),
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    state_dict = conversion.weight_map.to_torch({**conversion.variables, **updates})
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            torch.testing.assert_close(state_dict[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_without_train_nothing_is_updated(zoo, zoo_model):
    conversion = zoo("convnet")
    _, (x,), _ = zoo_model("convnet")
    _, updates = conversion.module.apply(
        conversion.variables, channels_last(x), mutable=["batch_stats"]
    )
    jax.tree.map(
        np.testing.assert_array_equal, updates["batch_stats"], conversion.variables["batch_stats"]
    )


# ---- fresh variables


@pytest.mark.parametrize("name", ["convnet", "encoder", "tied", "buffers", "bert", "vgg", "vit"])
def test_init_makes_the_same_tree(name, zoo, zoo_model):
    conversion = zoo(name)
    _, args, kwargs = zoo_model(name)
    arrays = conversion._signature.arrays(args, kwargs)
    fresh = jax.eval_shape(conversion.module.init, jax.random.key(0), *arrays)

    def kinds(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    assert kinds(fresh) == kinds(conversion.variables)


def test_fresh_variables_are_fit_to_train_from(zoo, zoo_model):
    conversion = zoo("buffers")
    _, (x,), _ = zoo_model("buffers")
    fresh = conversion.module.init(jax.random.key(0), as_array(x))
    gain = np.asarray(fresh["params"]["whiten"]["gain"])
    assert gain.std() > 0
    assert np.isfinite(np.asarray(conversion.module.apply(fresh, as_array(x)))).all()


# ---- gradients


def gradients_agree(model, x, conversion, array, training):
    """Of a weighted sum of the outputs, for every weight and for the input."""
    model.train(training)
    leaf = x.clone().requires_grad_()
    outputs = model(leaf)
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(3))
    (outputs * weights).sum().backward()
    rest = {name: tree for name, tree in conversion.variables.items() if name != "params"}

    def loss(params, array):
        given = {"params": params, **rest}
        if training:
            found, _ = conversion.module.apply(given, array, train=True, mutable=["batch_stats"])
        else:
            found = conversion.module.apply(given, array)
        return (found * as_array(weights)).sum()

    grads, by_input = jax.jit(jax.grad(loss, (0, 1)))(conversion.variables["params"], array)
    found = conversion.weight_map.to_torch({"params": grads, **rest})
    for name, parameter in model.named_parameters():
        # Sums over the batch in float32: relative to the largest entry of each.
        scale = float(parameter.grad.abs().max()) + 1e-6
        torch.testing.assert_close(
            found[name], parameter.grad, rtol=1e-3, atol=1e-4 * scale, msg=name
        )
    return leaf.grad, by_input


def test_gradients_of_a_convolutional_net_agree(nets, convert):
    model = nets.ConvNet()
    model.dropout = nn.Identity()
    x = torch.randn(3, 3, 8, 8)
    conversion = convert(model, x)
    for training in (False, True):
        model.zero_grad()
        expected, found = gradients_agree(model, x, conversion, channels_last(x), training)
        np.testing.assert_allclose(
            np.moveaxis(np.asarray(found), -1, 1), expected, rtol=1e-3, atol=1e-5
        )


def test_gradients_of_a_transformer_agree(zoo, zoo_model):
    model, (x,), _ = zoo_model("encoder")
    expected, found = gradients_agree(model, x, zoo("encoder"), as_array(x), training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_tied_weight_gets_the_gradient_of_both_uses(zoo, zoo_model):
    conversion = zoo("tied")
    model, (tokens,), _ = zoo_model("tied")
    model(tokens)["logits"].pow(2).sum().backward()

    def loss(params):
        logits, *_ = conversion.module.apply({"params": params}, as_array(tokens))
        return (logits**2).sum()

    grads = jax.jit(jax.grad(loss))(conversion.variables["params"])
    expected = model.embed.weight.grad.numpy()
    found = np.asarray(grads["embed"]["embedding"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_model_may_be_in_train_mode_when_it_is_converted():
    model = Drops().train()
    conversion = to_linen(model, (torch.randn(2, 4),))
    assert conversion.report.ok
    assert model.training
    assert "deterministic=not train" in conversion.source
