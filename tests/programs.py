"""Our programs as processes of their own whose imports are made already: those take longer than most tests.

Such a process does what `python -m crm_server` or `python -m sender` does after its imports, and is killed and
stopped like any. Tests of what users type (README, wheel, demo, the drill) start the interpreter itself.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from io import TextIOWrapper
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

IMPORTED = [
    "psycopg",
    "crm_server.app",
    "crm_server.cli",
    "crm_server.http_server",
    "crm_server.workers",
    "sender.cli",
    "sender.integration.app",
    "sender.integration.http_server",
    "tests.programs",
    "tests.frozen",
]
"""What is imported once, for all that are started."""


class Program:
    """A running program, as far as tests need `subprocess.Popen`."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: Path = Path(os.devnull),
        stdout: Path | None = None,
        stderr: Path | None = None,
    ) -> None:
        """Start a module as the main one. Files are appended to; without one, output is in `stdout`, `stderr`."""
        self.args = [sys.executable, "-m", module, *arguments]
        streams: list[Path | multiprocessing.connection.Connection] = [stdin]
        ours: list[multiprocessing.connection.Connection | None] = []
        for file in (stdout, stderr):
            reader, writer = _context().Pipe(duplex=False) if file is None else (None, file)
            streams.append(writer)
            ours.append(reader)
        self._process: ForkServerProcess = _context().Process(
            target=_run, args=(module, tuple(arguments), str(cwd), dict(env), tuple(streams))
        )
        self._process.start()
        for stream in streams:
            if not isinstance(stream, Path):
                stream.close()
        self.stdout, self.stderr = (_text(reader) for reader in ours)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for the signal that ended it; None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return what it printed and was not read yet. Raises subprocess.TimeoutExpired."""
        self.wait(timeout)
        printed = []
        for stream in (self.stdout, self.stderr):
            printed.append(stream.read() if stream and not stream.closed else "")
            if stream:
                stream.close()
        return printed[0], printed[1]

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it may have ended since, as with subprocess
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    module: str,
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str],
    stdin: str | bytes = "",
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run a module as the main one to its end."""
    with ExitStack() as stack:
        given, out, err = (stack.enter_context(tempfile.NamedTemporaryFile()) for _ in range(3))
        given.write(stdin if isinstance(stdin, bytes) else stdin.encode())
        given.flush()
        files = [Path(file.name) for file in (given, out, err)]
        program = Program(
            module, arguments, cwd=cwd, env=env, stdin=files[0], stdout=files[1], stderr=files[2]
        )
        try:
            code = program.wait(timeout)
        finally:
            program.kill()
        return subprocess.CompletedProcess(
            program.args, code, files[1].read_text(errors="replace"), files[2].read_text(errors="replace")
        )


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def _text(reader: multiprocessing.connection.Connection | None) -> TextIOWrapper | None:
    if reader is None:
        return None
    number = os.dup(reader.fileno())
    reader.close()
    return os.fdopen(number, encoding="utf-8")


def interrupt(
    module: str, *arguments: str, cwd: Path, env: Mapping[str, str], question: str
) -> subprocess.CompletedProcess[str]:
    """Run a program until it has asked a question, then press Ctrl-C. Return its end, and what it printed after."""
    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder) / "input"
        os.mkfifo(pipe)
        writer = os.open(pipe, os.O_RDWR)  # nobody waits for the other to open it
        program = Program(module, arguments, cwd=cwd, env=env, stdin=pipe)
        try:
            assert program.stdout is not None
            shown = ""
            while not shown.endswith(question):
                part = program.stdout.read(1)
                assert part, f"it ended before it asked: {shown}"
                shown += part
            program.send_signal(signal.SIGINT)
            printed, errors = program.communicate(timeout=20)
        finally:
            program.kill()
            os.close(writer)
    return subprocess.CompletedProcess(program.args, program.wait(), printed, errors)


def _run(
    module: str,
    arguments: tuple[str, ...],
    cwd: str,
    env: dict[str, str],
    streams: tuple[Path | multiprocessing.connection.Connection, ...],
) -> None:
    modes = (os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number, (stream, mode) in enumerate(zip(streams, modes, strict=True)):
        os.dup2(os.open(stream, mode) if isinstance(stream, Path) else stream.fileno(), number)
        if not isinstance(stream, Path):
            stream.close()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing closed it
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    # As in a terminal's foreground: what a shell starts in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=False)
