"""Naming: locals have the names of the source, and none is overwritten while it is still needed."""

import ast

import pytest
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """A model with some layers; subclasses write `forward`."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 4)
        self.fc2 = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.conv = nn.Conv1d(4, 4, 1)


def calls(conversion):
    """The `__call__` of the model's own class."""
    return [
        node
        for node in ast.walk(ast.parse(conversion.source))
        if isinstance(node, ast.FunctionDef) and node.name == "__call__"
    ][-1]


def lines(conversion):
    return [ast.unparse(statement) for statement in calls(conversion).body]


def assigned(conversion):
    return {
        node.id
        for node in ast.walk(calls(conversion))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def arguments(conversion):
    return [arg.arg for arg in calls(conversion).args.args]


X = torch.randn(3, 4)

# ---- the names of the source


class Locals(Net):
    def forward(self, features):
        query = self.fc1(features)
        key = self.fc2(features)
        scores = query * key
        return scores + query - key


def test_locals_have_the_names_of_the_source(convert):
    conversion = convert(Locals(), X)
    assert arguments(conversion) == ["self", "features"]
    assert {"query", "key"} <= assigned(conversion)
    assert assigned(conversion) <= {"query", "key", "scores"}


class Alias(Net):
    def forward(self, x):
        residual = x
        x = self.fc1(x)
        x = self.norm(x)
        return x + residual


def test_a_second_name_of_a_value_is_kept(convert):
    found = lines(convert(Alias(), X))
    assert found[0] == "residual = x"
    assert any(line.startswith("x = ") for line in found)


class Tuples(Net):
    def forward(self, x):
        left, right = self.fc1(x).chunk(2, dim=-1)
        first, *_, last = x.unbind(-1)
        return left * right.sigmoid(), first + last


def test_targets_of_a_tuple_keep_their_names(convert):
    conversion = convert(Tuples(), X)
    assert {"left", "right"} <= assigned(conversion)


class Augmented(Net):
    def forward(self, hidden):
        hidden = self.fc1(hidden)
        hidden += self.fc2(hidden)
        hidden *= 2
        return hidden - hidden.mean()


def test_augmented_assignments_go_on_under_one_name(convert):
    # What a layer adds may stand alone, under the layer's name.
    assert assigned(convert(Augmented(), X)) <= {"hidden", "fc2"}


class Single(Net):
    def forward(self, x):
        return torch.relu(self.fc1(x))


def test_a_value_used_once_is_nested(convert):
    (line,) = lines(convert(Single(), X))
    assert line == "return nn.relu(nn.Dense(4, name='fc1')(x))"


class Keywords(Net):
    def forward(self, x, *, mask=None, shift=None):
        x = x.masked_fill(mask, 0.0) if mask is not None else x
        return self.fc1(x) + shift


def test_keyword_arguments_keep_their_names(convert):
    conversion = convert(Keywords(), X, kwargs={"shift": torch.randn(4), "mask": X > 0})
    assert set(arguments(conversion)) == {"self", "x", "mask", "shift"}


# ---- tricky forwards: checked by verification, which runs them


class Swap(Net):
    def forward(self, a, b):
        a = self.fc1(a)
        b = self.fc2(b)
        for _ in range(3):
            a, b = b * 2, a + b
        return a, b, a - b


class OldValueLater(Net):
    def forward(self, x):
        y = self.fc1(x)
        old = y
        y = self.fc2(y)
        y = y + 1
        z = y * old
        y = self.norm(z)
        return y + old + z + x


class OldValueUnnamed(Net):
    def forward(self, x):
        keep = [x := self.fc1(x)]
        x = self.fc2(x)
        keep.append(x)
        x = self.norm(x)
        return keep[0] * keep[1] + x


class ReadsInWrittenOrder(Net):
    def forward(self, x):
        x = (x := x + 1) * (x := x * 2) - x
        return x


class ArgumentOverwritten(Net):
    def forward(self, x, y):
        first = x
        x = y
        y = first
        x = self.fc1(x)
        y = self.fc2(y) + x
        return x, y, first


class ShapeOfOldValue(Net):
    def forward(self, x):
        wide = torch.cat([x, x], dim=1)
        x = self.fc1(wide[:, :4])
        x = x.reshape(-1)
        ones = torch.ones(wide.shape)
        return x.reshape(wide.shape[0], -1), ones + wide


class LoopCarried(Net):
    def forward(self, x):
        previous, current = x, self.fc1(x)
        for _ in range(4):
            previous, current = current, current + 0.5 * previous
        return current


class Shadowing(Net):
    def forward(self, x):
        fc1 = self.fc1(x)
        norm = self.norm(fc1)
        conv = self.conv(norm[..., None])[..., 0]
        return fc1 * norm + conv


class RepeatedLayer(Net):
    def forward(self, fc1):
        x = self.fc1(fc1)
        x = self.fc1(x) + fc1
        fc1 = self.fc1(x)
        return fc1 - x


class Inlined(Net):
    """A helper function with locals of the same names."""

    def mix(self, y, x):
        x = torch.tanh(x) + y
        y = x * y
        return y - x

    def forward(self, x):
        y = self.fc1(x)
        x = self.mix(x, y)
        return self.mix(y, x) + x + y


class Underscores(Net):
    def forward(self, x):
        _ = self.fc1(x)
        __x = self.fc2(_)
        _x1 = __x + _
        return _x1 * __x


class Comprehension(Net):
    def forward(self, x):
        outs = [layer(x) for layer in (self.fc1, self.fc2)]
        return sum(outs) + outs[0] * outs[1]


class Dictionary(Net):
    def forward(self, x):
        d = {"a": self.fc1(x)}
        d["b"] = d["a"] + x
        d["a"] = self.fc2(d["b"])
        return d


class Attributes(Net):
    def forward(self, x):
        self.kept = self.fc1(x)
        out = self.fc2(self.kept)
        result = out + self.kept
        del self.kept
        return result


class ManyUses(Net):
    def forward(self, x):
        x1 = x2 = self.fc1(x)
        x1 = x1 + x2
        x2 = x2 * x1
        x = x1 - x2
        return x / (1 + x2.abs()) + x1


class Conditional(Net):
    def forward(self, x):
        y = x if x.shape[-1] == 4 else None
        y = self.fc1(y) if self.training is False else y
        return F.gelu(y) * (y if y is not None else 1)


TRICKY = [
    (Swap, 2),
    (OldValueLater, 1),
    (OldValueUnnamed, 1),
    (ReadsInWrittenOrder, 1),
    (ArgumentOverwritten, 2),
    (ShapeOfOldValue, 1),
    (LoopCarried, 1),
    (Shadowing, 1),
    (RepeatedLayer, 1),
    (Inlined, 1),
    (Underscores, 1),
    (Comprehension, 1),
    (Dictionary, 1),
    (Attributes, 1),
    (ManyUses, 1),
    (Conditional, 1),
]


@pytest.mark.parametrize(("cls", "count"), TRICKY, ids=lambda v: getattr(v, "__name__", ""))
def test_no_name_is_overwritten_while_it_is_needed(cls, count, convert):
    convert(cls(), *(torch.randn(3, 4) for _ in range(count)))


# ---- names that mean something in the emitted file

NAMES = [
    "train",
    "nn",
    "jnp",
    "jax",
    "partial",
    "name",
    "parent",
    "params",
    "scope",
    "lambda_",
    "range",
    "enumerate",
]


def with_argument(name):
    """A model whose `forward` has an argument, and a local, of a name."""
    namespace = {"torch": torch, "Net": Net}
    source = f"""
class Named(Net):
    def forward(self, {name}, other):
        {name} = self.fc1({name}) + other
        other = torch.tanh({name})
        {name} = self.fc2(other) * {name}
        return {name} + torch.arange(4) * other.mean(dim=-1, keepdim=True)
"""
    import linecache

    file = f"<named {name}>.py"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)
    return namespace["Named"]()


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_may_be_called_what_the_file_uses(name, convert):
    model = with_argument(name)
    conversion = convert(model, torch.randn(3, 4), torch.randn(3, 4))
    x, other = torch.randn(5, 4), torch.randn(5, 4)
    with torch.no_grad():
        expected = model(x, other)
    torch.testing.assert_close(
        torch.tensor(conversion(**{name: x, "other": other}).tolist()),
        expected,
        rtol=1e-5,
        atol=1e-5,
    )


class SubmoduleNames(nn.Module):
    """Submodules with names that Linen or Python takes."""

    def __init__(self):
        super().__init__()
        for name in ("self", "name", "class", "params", "variables", "setup", "0"):
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x):
        for layer in self._modules.values():
            x = torch.tanh(layer(x))
        return x


def test_submodules_may_be_called_anything(convert):
    conversion = convert(SubmoduleNames(), X)
    found = [name.rstrip("_") for name in conversion.variables["params"]]
    assert sorted(found) == sorted(SubmoduleNames()._modules)
