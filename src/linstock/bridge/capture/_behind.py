"""Putting something behind a node that others have read already, while the model is traced."""

import math
from collections.abc import Iterator, Sequence

from torch.fx import Node

from linstock.bridge.capture._frames import FRAME_TAG, NODE_TAG, Recorder


def put_behind(recorder: Recorder, node: Node, made: Node, readers: Sequence[Node]) -> bool:
    """Moves a part of what an operation just made of a node right behind the node, and gives it to
    those that have read the node; says whether that can be done.
    """
    if node.op == "placeholder":
        return False
    recorder.tag_new_nodes()
    home = _around(recorder, [node, *readers])
    new = _move(node, made, home)
    for reader in readers:
        reader.replace_input_with(node, made)
    old, outer = node.meta[NODE_TAG], {home, *_callers(recorder, home)}
    for number, entered in enumerate(recorder.entered):
        is_later = entered > old and number not in outer
        if is_later:
            given = recorder.given[number]
            given.update({name: new for name, tag in given.items() if tag == old})
        if is_later or number in outer:
            returned = recorder.returned[number]
            returned[:] = [new if tag == old else tag for tag in returned]
    return True


def _move(node: Node, made: Node, home: int) -> float:
    """Moves the operation and its part behind the node; gives the part's tag."""
    tag: float = node.meta[NODE_TAG]
    gap = (math.floor(tag) + 1 - tag) / 3  # tags say in which order nodes stand
    call = made.all_input_nodes[0]
    for behind, moved, share in ((node, call, 1), (call, made, 2)):
        behind.append(moved)
        moved.meta |= {NODE_TAG: tag + gap * share, FRAME_TAG: home}
    return tag + gap * 2


def _around(recorder: Recorder, nodes: Sequence[Node]) -> int:
    """The innermost call that all nodes are in."""
    numbers = [node.meta.get(FRAME_TAG, recorder.roots[-1]) for node in nodes]
    chains = [[number, *_callers(recorder, number)] for number in numbers]
    found: int = next(n for n in chains[0] if all(n in chain for chain in chains))
    return found


def _callers(recorder: Recorder, number: int) -> Iterator[int]:
    while recorder.callers[number] != number:
        number = recorder.callers[number]
        yield number
