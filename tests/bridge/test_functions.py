"""Functions of a row's own: a step may hold a `def`, which stands in front of the statement."""

import ast

import jax
import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import to_linen
from linstock.bridge.ir._tree import Call, Def, Global, Local, Op, Seq, call
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._rows import ROWS, Row

ARGS = (torch.randn(5, 3), torch.randn(5, 3))


class Running(nn.Module):
    """Its arguments have the names that the function gives."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, total, x):
        return torch.cumsum(x, 0) * self.fc(total)


def running_sum(build, self, dim):
    """`torch.cumsum` along the first axis, by a scan."""
    added = Op("+", (Local("carry"), Local("x")))
    step = Def("step", ("carry", "x"), (("total", added),), Seq((Local("total"), Local("total"))))
    found = Call(Global("jax.lax.scan"), (step, call("jnp.zeros", (3,)), build.tree(self)))
    parts = [Value(None, self.shape[1:], self.dtype), Value(None, self.shape, self.dtype)]
    return build.results(found, parts)[1]


@pytest.fixture
def conversion(monkeypatch):
    monkeypatch.setitem(
        ROWS, "aten.cumsum", Row("aten.cumsum", running_sum, ROWS["aten.cumsum"].accepts, "here")
    )
    torch.manual_seed(0)
    return to_linen(Running().eval(), ARGS)


def test_a_row_may_write_a_function(conversion):
    assert conversion.report.ok, str(conversion.report)
    arrays = [tensor.numpy() for tensor in ARGS]
    np.testing.assert_allclose(jax.jit(conversion)(*arrays), conversion(*ARGS), atol=1e-6)


def test_what_a_function_names_is_named_nowhere_else(conversion):
    (cls,) = [n for n in ast.parse(conversion.source).body if isinstance(n, ast.ClassDef)]
    method, step = [n for n in ast.walk(cls) if isinstance(n, ast.FunctionDef)]
    assert (method.name, step.name) == ("__call__", "step")
    outside = {arg.arg for arg in method.args.args}
    inside = {arg.arg for arg in step.args.args}
    inside |= {n.id for n in ast.walk(step) if isinstance(n, ast.Name) and n.id != "jnp"}
    assert not inside & outside
