"""An engine for papermill that executes a notebook in this process: no kernel to start, none to outlive the job."""

from __future__ import annotations

from typing import Any

import nbformat
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from papermill.engines import Engine, papermill_engines
from traitlets import Type
from traitlets.config import Config

NAME = "in this process"


class _Results(DisplayHook):  # type: ignore[misc]
    """Shows the value of a cell's last line as everything else is shown."""

    def write_output_prompt(self) -> None:
        """Write none."""

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        """Publish the value in all its formats."""
        assert self.shell is not None
        self.shell.display_pub.publish(format_dict, md_dict)


class _Shell(InteractiveShell):  # type: ignore[misc]
    displayhook_class = Type(_Results)
    display_pub_class = Type(CapturingDisplayPublisher)

    def enable_gui(self, gui: Any = None) -> None:
        """Open no windows."""


class InThisProcess(Engine):  # type: ignore[misc]
    """Executes the cells one after the other, up to the first that fails, and keeps what they show."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
        """Execute the cells of the notebook that the manager holds."""
        shell: Any = _Shell.instance(config=Config({"HistoryManager": {"enabled": False}}))
        shell.enable_matplotlib("inline")
        for index, cell in enumerate(nb_man.nb.cells):
            if cell.cell_type != "code":
                continue
            nb_man.cell_start(cell, index)
            error = _run(shell, cell)
            if error is not None:
                nb_man.cell_exception(cell, index)
            nb_man.cell_complete(cell, index)
            if error is not None:
                break


def _run(shell: Any, cell: Any) -> BaseException | None:
    """Execute one cell, put what it shows into it, and return what went wrong."""
    output: Any = nbformat.v4.new_output
    rich = shell.display_pub.outputs
    with capture_output(display=False) as written:
        done = shell.run_cell(cell.source, store_history=True)
    cell.execution_count = done.execution_count
    streams = {"stdout": written.stdout, "stderr": written.stderr}
    cell.outputs = [output("stream", name=name, text=text) for name, text in streams.items() if text]
    cell.outputs += [output("display_data", shown["data"], metadata=shown["metadata"]) for shown in rich]
    rich.clear()
    error: BaseException | None = done.error_before_exec or done.error_in_exec
    if error is not None:
        cell.outputs.append(output("error", ename=type(error).__name__, evalue=str(error), traceback=[]))
    return error


papermill_engines.register(NAME, InThisProcess)
