"""Work in a process of its own: with a time limit, and with memory that is its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


class ChildError(Exception):
    """Raised in the parent for what went wrong in the child, in its words."""


def in_child(work: Callable[[], Any], seconds: float | None = None) -> Any:
    """Return what a function returns that runs in a fork of this process.

    Args:
        work: the function; what it returns is pickled.
        seconds: how long it may take by the clock; None for any time.

    Raises:
        TimeoutError: if it takes longer; it is ended.
        ChildError: if it raises, or its process dies.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        try:
            sender.send((True, work()))
        except BaseException as error:  # whatever it is, the parent has to hear of it
            sender.send((False, f"{type(error).__name__}: {error}"))

    process = context.Process(target=run)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise TimeoutError(f"no answer in {seconds:.0f} s")
        worked, result = receiver.recv()
    except EOFError:
        raise ChildError("its process died") from None
    finally:
        process.kill()
        process.join()
    if not worked:
        raise ChildError(result)
    return result
