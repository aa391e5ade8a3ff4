"""The unmodified `ollama` program."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from attrs import frozen

from tests.ollama.build import ollama_folder, server_binary

TIMES = re.compile(r"(\d+|about an?|less than a) (second|minute|hour)s? (ago|from now)", re.IGNORECASE)


@frozen
class Cli:
    """The program with a home of its own, in which its key is."""

    home: Path
    host: str
    auth: str = "1"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one command, whose output is read while it runs."""
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "NO_PROXY": "127.0.0.1,localhost",
            "OLLAMA_HOST": self.host,
            "OLLAMA_AUTH": self.auth,
        }
        binary = server_binary(ollama_folder(os.environ))
        return subprocess.Popen(
            [str(binary), *arguments],
            env=environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def shown(self, *arguments: str) -> str:
        """Return what a command prints, without times and the blanks that fill columns up."""
        done = self.run(*arguments)
        assert 0 == done.returncode, done.stderr
        return re.sub(r"[ \t]+", " ", TIMES.sub("", done.stdout))
