"""Failures: what an exception of the model's says, and at which line of the model."""

from linstock.bridge.capture._frames import is_library


def first_line(error: BaseException) -> str:
    """The first line that an exception says, or its kind; some say too little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if type(error).__name__ == "UnsupportedOperatorException" and lines:
        return f"it cannot follow `{lines[0]}`, as is the case for sparse and nested tensors"
    return lines[0] if lines else type(error).__name__


def model_line(error: BaseException) -> str:
    """The innermost line of the traceback that is the model's."""
    where = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not is_library(file):
            where = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return where
