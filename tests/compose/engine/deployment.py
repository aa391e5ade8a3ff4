"""A deployment in a folder of its own, driven by the commands that an operator types."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from attrs import define, field

from authz.backends import env_file
from tests.compose.project import ROOT
from tests.up.stacks import until

DOMAIN: Final = "gw.test"
MODEL: Final = "registry:5000/library/toy"
AS_ROOT: Final = [] if os.geteuid() == 0 else ["sudo", "-n"]
_COMMAND_S: Final = 1500


@define
class Deployment:
    """The files of this repository in a folder, and what runs of them."""

    folder: Path
    secrets: list[str] = field(factory=list, repr=False)

    @classmethod
    def copied(cls, folder: Path) -> Deployment:
        """Copy what a checkout holds, the uncommitted too."""
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True)
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        return cls(folder)

    def set(self, **values: str) -> None:
        """Set variables in .env."""
        path = self.folder / ".env"
        text = path.read_text()
        for name, value in values.items():
            text = env_file.rewritten(text, name, value)
        path.write_text(text)

    def value(self, name: str) -> str | None:
        """Return what .env sets."""
        return env_file.value_of((self.folder / ".env").read_text(), name)

    def run(self, *argv: str, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the folder, in an environment that sets nothing of ours."""
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=_environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        assert not is_checked or done.returncode == 0, (argv, done.stdout[-4000:], done.stderr[-4000:])
        return done

    def compose(self, *arguments: str, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker compose`."""
        return self.run("docker", "compose", *arguments, is_checked=is_checked)

    def cli(self, *arguments: str, is_checked: bool = True) -> str:
        """Run a command in `cli`; return what it printed."""
        return self.compose("run", "--rm", "--no-TTY", "cli", *arguments, is_checked=is_checked).stdout

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text in a file that only root may write."""
        file = self.folder / path
        text = self.run(*AS_ROOT, "cat", str(file)).stdout
        assert old in text
        edited = self.folder / "edited"
        edited.write_text(text.replace(old, new))
        self.run(*AS_ROOT, "cp", "--no-preserve=all", str(edited), str(file))

    def ours(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this machine, beside the containers."""
        return self.run(sys.executable, "-m", "authz", *arguments)

    def states(self) -> dict[str, dict[str, Any]]:
        """Return what the engine says of each container, by its service."""
        ids = self.compose("ps", "--all", "--quiet").stdout.split()
        found = json.loads(self.run("docker", "inspect", *ids).stdout) if ids else []
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def address(self, service: str, network: str) -> str:
        """Return the address of a service on a network of the project."""
        networks = self.states()[service]["NetworkSettings"]["Networks"]
        found: str = next(each["IPAddress"] for name, each in networks.items() if name.endswith(network))
        return found

    def kill(self, service: str) -> None:
        """Kill a service's first process with -9, as a lack of memory does, and wait for the next one."""
        before = self.states()[service]["State"]
        image = self.states()["metering"]["Image"]
        end = f"import os; os.kill({before['Pid']}, 9)"
        self.run(
            *("docker", "run", "--rm", "--privileged", "--pid=host", "--user=0"),
            *(image, "python", "-c", end),
        )
        until(lambda: self.states()[service]["State"]["StartedAt"] > before["StartedAt"])

    def healthy(self) -> bool:
        """Return whether every container that has a health check is healthy, and no other failed."""
        found = [each["State"] for each in self.states().values()]
        checked = [state["Health"]["Status"] for state in found if "Health" in state]
        ended = [state["ExitCode"] for state in found if "Health" not in state]
        return bool(checked) and set(checked) == {"healthy"} and not any(ended)

    def usage(self, **where: str) -> dict[str, int]:
        """Return the tokens that were billed."""
        options = [part for name, value in where.items() for part in (f"--{name}", value)]
        rows = json.loads(self.cli("usage", "--by", "key", "--json", *options))
        return {row["key"]: row["input_tokens"] + row["output_tokens"] for row in rows}


@define
class Client:
    """A client of the gateway that trusts the test's authority alone."""

    root: Path
    key: str

    def stream(self, tokens: int, *, delay_ms: int = 0, model: str = MODEL) -> Iterator[dict[str, Any]]:
        """Ask for a streamed answer; each line as it arrives."""
        asked = {"model": model, "messages": [{"role": "user", "content": prompt(tokens, delay_ms)}]}
        with self._client() as client, client.stream("POST", "/api/chat", json=asked, **_SNI) as answer:
            if answer.status_code != 200:
                raise Refused(answer.status_code, answer.read().decode())
            yield from map(json.loads, answer.iter_lines())

    def chat(self, tokens: int = 5, *, model: str = MODEL) -> int:
        """Get a whole answer; return the tokens that it reports."""
        *words, last = self.stream(tokens, model=model)
        assert tokens == len(words)
        assert last["done"]
        spent: int = last["prompt_eval_count"] + last["eval_count"]
        return spent

    def chats(self) -> int:
        """Get an answer as soon as there is one again; return its tokens."""
        spent: list[int] = []

        def is_answered() -> bool:
            try:
                spent.append(self.chat())
            except (Refused, httpx.TransportError):
                return False
            return True

        until(is_answered)
        return spent[0]

    def get(self, path: str) -> httpx.Response:
        """Ask for a path."""
        with self._client() as client:
            return client.get(path, **_SNI)

    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url="https://127.0.0.1",
            headers={"Host": DOMAIN, "Authorization": f"Bearer {self.key}"},
            verify=ssl.create_default_context(cafile=self.root),
            timeout=60,
            trust_env=False,
        )


_SNI: Final[Mapping[str, Any]] = {"extensions": {"sni_hostname": DOMAIN}}


class Refused(Exception):
    """The gateway's answer is a refusal."""


def prompt(tokens: int, delay_ms: int) -> str:
    """Tell the scripted runner what to answer."""
    return f"tokens={tokens} delay_ms={delay_ms}"


@contextmanager
def distant_client(number: int) -> Iterator[list[str]]:
    """Make a machine of its own beside this one: 10.77.N.2 and fd77:N::2, which sees us as 10.77.N.1."""
    name, ours, theirs = f"gwclient{number}", f"gwhost{number}", f"gwpeer{number}"

    def ip(*arguments: str) -> None:
        subprocess.run([*AS_ROOT, "ip", *arguments], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        for family, subnet in (("-4", f"10.77.{number}."), ("-6", f"fd77:{number}::")):
            size = "24" if family == "-4" else "64"
            nodad = [] if family == "-4" else ["nodad"]
            ip(family, "address", "add", f"{subnet}1/{size}", "dev", ours, *nodad)
            ip("-n", name, family, "address", "add", f"{subnet}2/{size}", "dev", theirs, *nodad)
        ip("link", "set", ours, "up")
        ip("-n", name, "link", "set", theirs, "up")
        yield [*AS_ROOT, "ip", "netns", "exec", name]
    finally:
        ip("netns", "delete", name)


def _environ() -> dict[str, str]:
    passed = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR")
    return {name: os.environ[name] for name in passed if name in os.environ}
