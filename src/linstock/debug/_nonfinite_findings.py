"""What the codes of module calls say: which call is to blame for numbers that are not finite."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from linstock.debug._nonfinite_calls import INFINITY, NAN, NumberRecorder, Watched
from linstock.debug._recording import Call
from linstock.typing import Path

Origin = Literal["call", "parameter", "input", "gradient"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A place where numbers stopped being finite.

    Args:
        path: the module.
        class_name: its class.
        method: the method that was called.
        line: the user's line that made the call; empty if there is none.
        origin: `call` if the call made them from finite inputs and parameters, `parameter` if it
            was given finite inputs and holds a parameter that is not, `input` if they came in
            from outside the outermost call, `gradient` if the gradient of the call made them.
        kind: `NaN`, `infinity`, or `NaN and infinity`.
        names: the outputs, parameters, inputs or gradients that are not finite.
        explanation: what is known, as a sentence.
    """

    path: Path
    class_name: str
    method: str
    line: str
    origin: Origin
    kind: str
    names: tuple[str, ...]
    explanation: str

    def __str__(self) -> str:
        at = f", called at {self.line}" if self.line else ""
        name = self.class_name if self.method == "__call__" else f"{self.class_name}.{self.method}"
        return f"/{'/'.join(self.path)} ({name}){at}\n    {self.explanation}"


def find_forward(recorder: NumberRecorder) -> list[Finding]:
    to_blame = {w.call: w for w in recorder.watched if any(_is_origin(run) for run in w.runs)}
    innermost = _innermost(to_blame)
    if innermost:
        return [_explain_call(w, recorder) for w in innermost]
    roots = [w for w in recorder.watched if w.call.caller is None]
    return [_explain_input(w) for w in roots if any(any(run[0]) for run in w.runs)]


def _is_origin(run: tuple[list[int], list[int], list[int]]) -> bool:
    inputs, _, outputs = run
    return not any(inputs) and any(outputs)


def _innermost(to_blame: dict[Call, Watched]) -> list[Watched]:
    outer = set()
    for call in to_blame:
        while (caller := call.caller) is not None:
            outer.add(caller)
            call = caller
    return [watched for call, watched in to_blame.items() if call not in outer]


def _explain_call(watched: Watched, recorder: NumberRecorder) -> Finding:
    runs = [run for run in watched.runs if _is_origin(run)]
    bad_parameters = _names(watched.parameters, [run[1] for run in runs])
    if bad_parameters:
        kind = _kind([code for run in runs for code in run[1]])
        holds = " and ".join(f"`{name}`" for name in bad_parameters)
        text = f"holds {kind} in {holds}; its inputs were finite."
        return _finding(watched.call, "parameter", kind, bad_parameters, text)
    names = _names(watched.outputs, [run[2] for run in runs])
    inside = [w for w in recorder.watched if w.call.caller is watched.call]
    given = _first_given(inside)
    first_runs = [run[0] for run in given.runs] if given else [run[2] for run in runs]
    kind = _kind([code for codes in first_runs for code in codes])
    text = f"made {kind} from finite inputs and parameters"
    if inside:
        text += f", in its own code, {_place_in_code(inside, given)}"
    if hidden := _hidden(watched, recorder):
        text += f", or in {hidden} inside it, which did not run or runs where it cannot report"
    if inside and recorder.variables:
        text += f"; of the variables passed in, {_listing(recorder.variables)} are not finite"
    return _finding(watched.call, "call", kind, names, text + ".")


def _first_given(inside: list[Watched]) -> Watched | None:
    """The first call that was given nonfinite numbers, where the order is known: not in a loop."""
    if any(len(watched.runs) > 1 for watched in inside):
        return None
    return next((w for w in inside if any(any(run[0]) for run in w.runs)), None)


def _place_in_code(inside: list[Watched], given: Watched | None) -> str:
    if given is not None:
        line = f" at {given.call.line}" if given.call.line else ""
        names = _listing(_names(given.inputs, [run[0] for run in given.runs]))
        return f"before it called {given.call.path_text}{line} with {names}"
    if any(any(run[0]) for watched in inside for run in watched.runs):
        return "between the calls inside it"
    return "after the calls inside it"


def _hidden(watched: Watched, recorder: NumberRecorder) -> str:
    """The modules inside a call that were traced and that never reported."""
    heard = {(w.call.path, w.call.method) for w in recorder.watched if w.runs}
    silent = [
        w.call.path_text
        for w in recorder.watched
        if (w.call.path, w.call.method) not in heard and _is_inside(w.call, watched.call)
    ]
    return _listing(dict.fromkeys(silent)) if silent else ""


def _is_inside(call: Call, outer: Call) -> bool:
    while (caller := call.caller) is not None:
        if caller is outer:
            return True
        call = caller
    return False


def _explain_input(watched: Watched) -> Finding:
    names = _names(watched.inputs, [run[0] for run in watched.runs])
    kind = _kind([code for run in watched.runs for code in run[0]])
    text = f"was given {kind} in {_listing(names)}; it came from outside the model."
    return _finding(watched.call, "input", kind, names, text)


def find_backward(recorder: NumberRecorder, gradients: dict[Path, dict[str, int]]) -> list[Finding]:
    """Gradients run against the program, so the call that comes last in it is the first."""
    to_blame = {
        w.call: w for w in recorder.watched if _bad_gradients(w, gradients.get(w.call.path, {}))
    }
    found = []
    for watched in reversed(_innermost(to_blame)):
        bad = _bad_gradients(watched, gradients.get(watched.call.path, {}))
        kind = _kind(list(bad.values()))
        text = (
            f"made {kind} in the gradient of {_listing(bad)}; the gradient of its result was "
            "finite, and so were all numbers of the forward pass."
        )
        found.append(_finding(watched.call, "gradient", kind, tuple(bad), text))
    return found or _explain_loss(recorder, gradients)


def _bad_gradients(watched: Watched, parameters: dict[str, int]) -> dict[str, int]:
    """What is not finite of the gradients that a call made from a finite one."""
    if not watched.backward_runs:
        return {}
    bad: dict[str, int] = {}
    for incoming, codes in watched.backward_runs:
        if not incoming:
            bad |= {n: c for n, c in zip(watched.inputs, codes or [], strict=False) if c}
    if all(not incoming for incoming, _ in watched.backward_runs):
        bad |= parameters
    return bad


def _explain_loss(recorder: NumberRecorder, gradients: dict[Path, dict[str, int]]) -> list[Finding]:
    """Nonfinite gradients that no call made: they lie between calls, or come from the loss."""
    received = [w for w in recorder.watched if any(incoming for incoming, _ in w.backward_runs)]
    if not received:
        return [_explain_parameters(recorder, path, bad) for path, bad in gradients.items()]
    last = received[-1].call
    while (caller := last.caller) is not None and any(w.call is caller for w in received):
        last = caller
    kind = _kind([incoming for incoming, _ in received[-1].backward_runs])
    if last.caller is None:
        text = f"was given a gradient with {kind}: the loss made it; the forward pass was finite."
        return [_finding(last, "gradient", kind, (), text)]
    line = f" at {last.line}" if last.line else ""
    text = f"made {kind} in its gradient, in its own code after it called {last.path_text}{line}."
    return [_finding(last.caller, "gradient", kind, (), text)]


def _explain_parameters(recorder: NumberRecorder, path: Path, bad: dict[str, int]) -> Finding:
    """Gradients of parameters that are not finite, of which no call is known to be the maker."""
    calls = [w.call for w in recorder.watched if w.call.path == path[: len(w.call.path)]]
    call = max(calls, key=lambda call: len(call.path))
    kind = _kind(list(bad.values()))
    names = tuple("/".join([*path[len(call.path) :], name]) for name in bad)
    text = f"has {kind} in the gradient of {_listing(names)}; which call made it is not known."
    return _finding(call, "gradient", kind, names, text)


def _finding(
    call: Call, origin: Origin, kind: str, names: tuple[str, ...], explanation: str
) -> Finding:
    return Finding(
        call.path, call.class_name, call.method, call.line, origin, kind, names, explanation
    )


def _names(names: list[str], runs: list[list[int]]) -> tuple[str, ...]:
    bad = [any(codes) for codes in zip(*runs, strict=True)] if runs else []
    return tuple(name for name, is_bad in zip(names, bad, strict=False) if is_bad)


def _kind(codes: list[int]) -> str:
    bits = 0
    for code in codes:
        bits |= code
    return {0: "nothing", NAN: "NaN", INFINITY: "infinity"}.get(bits, "NaN and infinity")


def _listing(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def remarks(recorder: NumberRecorder, findings: tuple[Finding, ...]) -> list[str]:
    if not recorder.watched:
        return ["No module was called."]
    n_run = sum(bool(w.runs) for w in recorder.watched)
    if not n_run:
        return [f"{len(recorder.watched)} module calls were traced, and none of them ran."]
    if not findings:
        bad = _listing(recorder.variables)
        return [f"All numbers in {n_run} module calls were finite."] + (
            [f"Of the variables passed in, {bad} are not finite; no call showed it."] * bool(bad)
        )
    notes = []
    is_repeated = any(len(w.runs) > 1 for w in recorder.watched)
    if len(findings) > 1 and is_repeated:
        notes.append("Some calls ran more than once; which of these places came first in time ")
        notes[-1] += "is not known. They are in the order of the program."
    roots = [w for w in recorder.watched if w.call.caller is None]
    if findings[0].origin == "call" and not any(any(r[2]) for w in roots for r in w.runs):
        notes.append("The result of the outermost call is finite all the same.")
    return notes
