"""The map of lines: from a line of the emitted file to the line of the source behind it."""

import ast
import inspect
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from linstock.bridge.emit._linemap import line_map
from linstock.bridge.ir._origin import Origin

HERE = Path(__file__)


def scaled(x, gate):
    return x * torch.sigmoid(gate)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.gate = nn.Parameter(torch.rand(4))

    def forward(self, x, mask=None):
        h = self.fc(x).cumsum(-1)  # inner-fc
        if mask is not None:
            h = h * mask  # inner-mask
        y = torch.flip(h, (-1,))  # inner-flip
        return torch.tanh(y) + scaled(h, self.gate)  # inner-return


class Step(nn.Module):
    """Written where it is called: it holds no weights and is short."""

    def forward(self, x):
        return torch.relu(x)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.step = Step()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
        self.tail = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2))

    def forward(self, x):
        x = self.inner(x)  # outer-first
        for layer in self.layers:
            x = torch.relu(layer(x))  # outer-loop
        mask = (x > 0).to(x.dtype)  # outer-mask
        second = self.inner(
            x * 2,
            mask,
        )  # after the call
        third = self.step(second - 1)  # outer-step
        total = torch.einsum("bi,bj->bij", third, x).sum(-1)  # outer-einsum
        return F.log_softmax(self.tail(total), dim=-1)  # outer-return


def line_of(marker):
    lines = HERE.read_text(encoding="utf-8").splitlines()
    (found,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {marker}")]
    return found


@pytest.fixture(scope="module")
def outer(convert):
    torch.manual_seed(0)
    return convert(Outer(), torch.randn(2, 4))


def lines_with(conversion, text):
    """The lines of the statements that hold a text, as numbers of their first and last lines."""
    for node in ast.walk(ast.parse(conversion.source)):
        if isinstance(node, ast.Assign | ast.Return) and text in ast.unparse(node):
            yield range(node.lineno, node.end_lineno + 1)


@pytest.mark.parametrize(
    ("text", "marker"),
    [
        ("name='fc'", "inner-fc"),
        ("h * mask", "inner-mask"),
        ("jnp.flip", "inner-flip"),
        ("jnp.tanh", "inner-return"),
        ("name=f'layers_{i}'", "outer-loop"),
        ("astype", "outer-mask"),
        ("einsum", "outer-einsum"),
        ("nn.log_softmax", "outer-return"),
    ],
)
def test_a_statement_is_mapped_to_its_line(text, marker, outer):
    statements = list(lines_with(outer, text))
    assert statements, outer.source
    for line in itertools.chain(*statements):
        assert outer.line_map[line] == f"{HERE}:{line_of(marker)}", outer.source


def test_calls_of_one_module_are_mapped_to_their_own_lines(outer):
    first, second = lines_with(outer, "inner(")
    assert outer.line_map[first[0]] == f"{HERE}:{line_of('outer-first')}"
    # A statement of several lines is the line that Python says is running.
    line = int(outer.line_map[second[0]].rpartition(":")[2])
    assert line_of("after the call") - 3 <= line <= line_of("after the call")


def test_what_is_written_in_place_is_mapped_to_its_call(outer):
    lines = [line for lines in lines_with(outer, "nn.relu(second") for line in lines]
    assert lines, outer.source
    assert {outer.line_map[line] for line in lines} == {f"{HERE}:{line_of('outer-step')}"}


def test_heads_of_classes_and_methods_are_mapped_to_nothing(outer):
    for number, line in enumerate(outer.source.splitlines(), 1):
        if line.lstrip().startswith(("class ", "def ", "@", "import ", "from ", '"""')):
            assert number not in outer.line_map


FILES = {
    "resnet18": "torchvision/models/resnet.py",
    "vit": "torchvision/models/vision_transformer.py",
    "bert": "transformers/models/bert/modeling_bert.py",
    "gpt2_lm": "transformers/models/gpt2/modeling_gpt2.py",
    "vgg": "nets.py",
    "tied": "nets.py",
    "buffers": "nets.py",
    "encoder": "nets.py",
}
# Classes that the model takes from elsewhere, and functions that its classes call.
SHARED = {
    "resnet18": set(),
    "vit": {"torchvision/ops/misc.py"},
    "bert": {"transformers/masking_utils.py", "transformers/integrations/sdpa_attention.py"},
    "gpt2_lm": {
        "transformers/activations.py",
        "transformers/pytorch_utils.py",
        "transformers/masking_utils.py",
        "transformers/integrations/sdpa_attention.py",
    },
}


@pytest.mark.parametrize("name", FILES)
def test_every_line_of_a_model_is_mapped_into_its_own_files(name, zoo):
    conversion = zoo(name)
    allowed = {FILES[name], *SHARED.get(name, ())}
    for line, place in conversion.line_map.items():
        file, _, number = place.rpartition(":")
        assert any(file.endswith(end) for end in allowed), f"{line} -> {place}"
        assert 0 < int(number) <= len(Path(file).read_text(encoding="utf-8").splitlines())


def is_written_by_nobody(node):
    """Whether a statement returns names, declares a variable, or makes what is called later."""
    value = node.value
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    text = ast.unparse(value)
    declares = ("self.param(", "self.variable(", "partial(", ".variables[")
    makes = isinstance(value, ast.Call) and any(word.arg == "name" for word in value.keywords)
    return (
        makes
        or text.startswith(declares[:3])
        or declares[3] in text
        or all(isinstance(part, ast.Name) for part in parts)
    )


@pytest.mark.parametrize("name", FILES)
def test_every_statement_that_somebody_wrote_is_mapped(name, zoo):
    conversion = zoo(name)
    classes = [n for n in ast.parse(conversion.source).body if isinstance(n, ast.ClassDef)]
    left = [
        ast.unparse(node)
        for node in ast.walk(ast.Module(classes, []))
        if isinstance(node, ast.Assign | ast.Return)
        and node.lineno not in conversion.line_map
        and not is_written_by_nobody(node)
    ]
    assert left == []


def test_a_line_of_a_model_is_the_line_that_calls_the_layer(zoo):
    conversion = zoo("encoder")
    for line, place in conversion.line_map.items():
        text = conversion.source.splitlines()[line - 1]
        file, _, number = place.rpartition(":")
        if "self." in text or 'name="' not in text:
            continue
        name = text.split('name="')[1].split('"')[0]
        source = Path(file).read_text(encoding="utf-8").splitlines()[int(number) - 1]
        assert f"self.{name}" in source, (text, source)


def test_only_statements_of_the_method_are_counted():
    source = inspect.cleandoc(
        """
        class A(Block):
            def __init__(self):
                self.fc = Dense(4)

            def run(self, x):
                for i in range(2):
                    x = (
                        self.fc(x)
                    )
                return x

        B = A
        """
    )
    origin = Origin("nets.py", 7, 6, ("x",))
    assert line_map(source, "run", {"A": [None, origin, None]}) == {7: origin, 8: origin, 9: origin}


def test_a_statement_too_many_is_our_mistake():
    source = "class A(Block):\n    def run(self, x):\n        return x\n"
    with pytest.raises(ValueError, match="zip"):
        line_map(source, "run", {"A": []})
