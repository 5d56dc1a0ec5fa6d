"""Ask the server of a run for a job, and end as it ends; start the job here where no server answers.

A script that starts in a hundredth of a second: it imports the standard library alone. Its arguments are the server's
socket, then those of the job.
"""

import json
import os
import signal
import socket
import sys


def main() -> None:
    """Run the job."""
    path, *arguments = sys.argv[1:]
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the job too, which decides how it ends
    folder = os.getcwd()  # noqa: PTH109 (pathlib takes as long to import as all the rest)
    request: dict[str, object] = {"arguments": arguments, "folder": folder, "environment": dict(os.environ)}
    request["interruptible"] = interrupt is not signal.SIG_IGN
    pid, code = 0, ""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            socket.send_fds(connection, [b"\n"], [1, 2])
            connection.sendall(json.dumps(request).encode() + b"\n")
            answers = connection.makefile()
            if pid := int(answers.readline() or 0):
                signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
            code = answers.readline()
    except OSError:
        pass
    if pid:
        sys.exit(int(code) if code else f"the job's process {pid} was killed")
    signal.signal(signal.SIGINT, interrupt)
    os.execv(sys.executable, [sys.executable, "-m", "reproduction", *arguments])


main()
