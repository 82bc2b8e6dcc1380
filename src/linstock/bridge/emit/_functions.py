"""Functions with a gradient of their own, as `jax.custom_vjp` writes them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from linstock.bridge.emit._lines import Method, printed
from linstock.bridge.emit._naming import name_way
from linstock.bridge.emit._printer import Printer
from linstock.bridge.ir._custom import CustomFunction, Phase
from linstock.bridge.ir._instance import SourceClass
from linstock.bridge.ir._program import ModuleClass, PlacedStep, Way
from linstock.bridge.ir._tree import Const, Dim, Global, Ref, Seq, Tree, walk

Place = Callable[[ModuleClass, Way], Way]


class FunctionWriter:
    """Writes functions.

    Attributes:
        names: What each function is called, by its name in the program.
    """

    def __init__(
        self,
        functions: Sequence[CustomFunction],
        place: Place,
        printer: Printer,
        reserved: frozenset[str],
    ) -> None:
        """Gives the functions names.

        Args:
            functions: The functions.
            place: Puts the target's forms in.
            printer: The file's printer, which learns the names.
            reserved: Names that the file needs for something else.
        """
        self._functions = functions
        self._place = place
        self._printer = printer
        self.names: dict[str, str] = {}
        taken = set(reserved)
        for function in functions:
            name = function.name
            while taken & {name, *_phases(name)}:
                name += "_"
            taken |= {name, *_phases(name)}
            self.names[function.name] = name
        printer.functions.update(self.names)
        self._reserved = frozenset(taken | {"saved", "gradients"})

    @property
    def taken(self) -> frozenset[str]:
        """The names that the functions have."""
        return frozenset(part for name in self.names.values() for part in (name, *_phases(name)))

    def texts(self) -> Iterator[str]:
        """Each function, with its forward and backward."""
        for function in self._functions:
            yield "\n\n".join(self._parts(function, self.names[function.name])) + "\n"

    def _parts(self, function: CustomFunction, name: str) -> Iterator[str]:
        forward, backward = function.forward, function.backward
        results = _together(forward.results)
        if backward is None:
            yield self._def(name, self._method(forward, forward.args, results))
            return
        decorator = f"@{self._printer.text(Global('jax.custom_vjp'))}\n"
        yield decorator + self._def(name, self._method(forward, forward.args, results))
        yield self._forward(function, name)
        yield self._backward(function, backward, name)
        ahead, back = _phases(name)
        yield f"{name}.defvjp({ahead}, {back})"

    def _forward(self, function: CustomFunction, name: str) -> str:
        forward, saved = function.forward, tuple(function.saved.values())
        keys = list(forward.args)
        if all(isinstance(tree, Ref) and tree.key in forward.args for tree in saved):
            args = self._method(forward, forward.args, Const(None)).args
            kept = [args[keys.index(tree.key)] for tree in saved if isinstance(tree, Ref)]
            text = kept[0] if len(kept) == 1 else f"({', '.join(kept)})"
            called = f"{name}({', '.join(args)})"
            return f"def {name}_forward({', '.join(args)}):\n    return {called}, {text}"
        results = Seq((_together(forward.results), _together(saved)))
        return self._def(f"{name}_forward", self._method(forward, forward.args, results))

    def _backward(self, function: CustomFunction, backward: Phase, name: str) -> str:
        given = tuple(Const(None) if tree is None else tree for tree in backward.results)
        method = self._method(backward, backward.args, Seq(given))
        count = len(function.saved)
        saved, gradients = method.args[:count], method.args[count:]
        first = saved[0] if count == 1 else "saved" if count else "_"
        second = gradients[0] if len(gradients) == 1 else "gradients"
        lines = [f"def {name}_backward({first}, {second}):"]
        if count > 1:
            lines.append(f"    {', '.join(saved)} = saved")
        if len(gradients) > 1:
            lines.append(f"    {', '.join(gradients)} = gradients")
        lines += [f"    {line}" for line in printed(method.lines, self._printer)]
        return "\n".join(lines)

    def _def(self, name: str, method: Method) -> str:
        lines = printed(method.lines, self._printer)
        return "\n".join(
            [f"def {name}({', '.join(method.args)}):", *(f"    {line}" for line in lines)]
        )

    def _method(self, phase: Phase, args: dict[int, str], result: Tree) -> Method:
        steps = [PlacedStep(key, phase.steps[key]) for key in _read(phase, result)]
        way = Way(None, steps, {}, [result], [phase.shapes])
        source = SourceClass("", "", object)
        cls = ModuleClass("", source, [], [], dict(args), [], {}, [], [])
        return name_way(cls, self._place(cls, way), self._reserved)


def _phases(name: str) -> tuple[str, str]:
    return f"{name}_forward", f"{name}_backward"


def _together(trees: Sequence[Any]) -> Tree:
    return trees[0] if len(trees) == 1 else Seq(tuple(trees))


def _read(phase: Phase, result: Tree) -> list[int]:
    """The steps that a result needs, in order."""
    found: set[int] = set()
    pending = [result]
    while pending:
        for part in walk(pending.pop()):
            ref = part.of if isinstance(part, Dim) else part
            if isinstance(ref, Ref) and ref.key in phase.steps and ref.key not in found:
                found.add(ref.key)
                pending.append(phase.steps[ref.key].tree)
    return [key for key in phase.steps if key in found]
