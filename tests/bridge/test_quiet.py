"""Capture prints nothing, whatever torch and the model print, and puts everything back."""

import contextlib
import io
import logging
import sys
import threading
import warnings

import pytest
import torch
from torch import nn

from linstock.bridge import CaptureError, to_linen
from linstock.bridge.capture._quiet import quiet

X = torch.randn(2, 4)


class Refused(nn.Module):
    def forward(self, x):
        x = x * 2
        return -x if x.sum() > 0 else x


class Prints(nn.Module):
    def forward(self, x):
        print("forward")
        return x + 1


def test_a_refused_model_prints_nothing(capfd, caplog):
    handler = logging.StreamHandler(stream := io.StringIO())
    logging.getLogger("torch").addHandler(handler)
    try:
        with pytest.raises(CaptureError):
            to_linen(Refused(), (X,))
    finally:
        logging.getLogger("torch").removeHandler(handler)
    assert capfd.readouterr() == ("", "")
    assert stream.getvalue() == ""


def test_what_the_model_prints_is_shown_once(capsys):
    to_linen(Prints().eval(), (X,), verify=False)
    assert capsys.readouterr().out == "forward\n"


def test_streams_and_handlers_are_as_before():
    handler = logging.StreamHandler(io.StringIO())
    logging.getLogger("torch").addHandler(handler)
    try:
        before = sys.stdout, sys.stderr
        with contextlib.suppress(RuntimeError), quiet():
            assert sys.stdout is not before[0]
            raise RuntimeError
        assert (sys.stdout, sys.stderr) == before
        assert handler.filters == []
        assert logging.lastResort.filters == []
    finally:
        logging.getLogger("torch").removeHandler(handler)


def test_torchs_warnings_are_no_errors_inside_and_are_again_outside():
    def warn():
        warnings.warn_explicit("assigned", UserWarning, "trace.py", 1, module="torch.export")

    before = list(warnings.filters)
    with quiet():
        warn()
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning, match="assigned"):
        warn()


def test_the_models_own_warnings_are_heard():
    with quiet(), pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def test_a_stream_that_was_put_in_place_meanwhile_stays(monkeypatch):
    other = io.StringIO()
    with quiet():
        monkeypatch.setattr(sys, "stderr", other)
    assert sys.stderr is other


def test_nothing_is_heard_until_the_outermost_ends(capsys):
    with quiet():
        with quiet():
            print("inner")
        print("outer")
    print("after")
    assert capsys.readouterr().out == "after\n"


def in_thread(work):
    failures = []

    def run():
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures


def test_other_threads_print_and_log(capsys):
    handler = logging.StreamHandler(stream := io.StringIO())
    logger = logging.getLogger("torch.linstock_test")
    logger.addHandler(handler)
    logger.propagate = False

    def work():
        print("other")
        logger.warning("logged")

    try:
        with quiet():
            print("own")
            logger.warning("dropped")
            in_thread(work)
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().out == "other\n"
    assert stream.getvalue() == "logged\n"


def test_threads_that_overlap_leave_the_streams_as_they_were():
    before = sys.stdout, sys.stderr
    first = quiet()
    first.__enter__()
    entered, leave = threading.Event(), threading.Event()

    def work():
        with quiet():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    first.__exit__(None, None, None)
    leave.set()
    thread.join()
    assert (sys.stdout, sys.stderr) == before


def test_logs_of_others_are_heard():
    handler = logging.StreamHandler(stream := io.StringIO())
    logger = logging.getLogger("torchless")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with quiet():
            logger.warning("mine")
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "mine\n"
