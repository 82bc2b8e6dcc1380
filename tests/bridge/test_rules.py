"""The article's five rules of conversion, on the syntax tree of every emitted class."""

import ast

import pytest

NAMES = [
    "resnet18",
    "convnet",
    "vgg",
    "vit",
    "bert",
    "bert_lm",
    "gpt2_lm",
    "tied",
    "buffers",
    "encoder",
]


@pytest.fixture(params=NAMES)
def source(request, zoo):
    return zoo(request.param).source


@pytest.fixture
def classes(source):
    found = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    assert found
    return found


def functions(cls):
    return {node.name: node for node in cls.body if isinstance(node, ast.FunctionDef)}


def nodes(tree, kind):
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


def test_a_class_is_a_module_by_inheritance(classes):
    for cls in classes:
        assert [ast.unparse(base) for base in cls.bases] == ["nn.Module"]
        assert not cls.decorator_list


def test_1_fields_are_annotated_and_there_is_no_init(classes):
    for cls in classes:
        assert "__init__" not in functions(cls)
        assert "__post_init__" not in functions(cls)
        # An assignment without annotation would be no field.
        assert not [node for node in cls.body if isinstance(node, ast.Assign)], cls.name
        for node in cls.body:
            if isinstance(node, ast.AnnAssign):
                assert ast.unparse(node.annotation) != "Any"


def test_1_every_field_is_read(classes):
    for cls in classes:
        fields = {node.target.id for node in cls.body if isinstance(node, ast.AnnAssign)}
        read = {
            node.attr for node in nodes(cls, ast.Attribute) if ast.unparse(node.value) == "self"
        }
        assert fields <= read, cls.name


def test_2_own_parameters_go_through_self_param(classes):
    for cls in classes:
        for call in nodes(cls, ast.Call):
            function = ast.unparse(call.func)
            if function == "self.param":
                name, initializer, *_ = call.args
                assert isinstance(name, ast.Constant)
                assert name.value != "params"
                # One of Linen's, one that the file defines, or a computation.
                starts = ("nn.initializers.", "draw_", "fan_in_uniform", "zero_row", "lambda key")
                assert ast.unparse(initializer).startswith(starts)
            if function == "self.variable":
                collection, name, *_ = call.args
                assert collection.value in ("buffers", "batch_stats")
        # No array is kept on the module, nor made outside of a call.
        stored = [node for node in nodes(cls, ast.Attribute) if isinstance(node.ctx, ast.Store)]
        assert not stored, cls.name


def test_3_parameters_and_computation_meet_in_a_compact_call(classes):
    for cls in classes:
        methods = functions(cls)
        assert set(methods) == {"__call__"}, cls.name
        assert [ast.unparse(d) for d in methods["__call__"].decorator_list] == ["nn.compact"]


def test_3_every_submodule_with_variables_has_the_name_of_the_source(classes):
    layers = {"Conv", "Dense", "BatchNorm", "LayerNorm", "Embed", "MultiHeadDotProductAttention"}
    for cls in classes:
        for call in nodes(cls, ast.Call):
            function = ast.unparse(call.func)
            if function.removeprefix("nn.") in layers and function.startswith("nn."):
                assert "name" in {keyword.arg for keyword in call.keywords}, ast.unparse(call)


def test_4_the_file_shows_how_to_initialize(source):
    docstring = ast.get_docstring(ast.parse(source))
    assert "model.init(jax.random.key(0), jnp.zeros(" in docstring


def test_5_the_file_shows_how_to_call_with_the_variables(source):
    docstring = ast.get_docstring(ast.parse(source))
    assert "outputs = model.apply(variables, " in docstring


def test_train_is_off_unless_asked_for(classes):
    for cls in classes:
        arguments = functions(cls)["__call__"].args
        named = dict(
            zip([a.arg for a in arguments.args][::-1], arguments.defaults[::-1], strict=False)
        )
        if "train" in named:
            assert named["train"].value is False
            assert arguments.args[-1].arg == "train"


def test_no_size_of_the_batch_is_written(source):
    assert ".reshape(2," not in source
    assert ".reshape(1," not in source
