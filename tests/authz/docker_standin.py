"""A stand-in for `docker`: an executable that replays what the real one printed, and notes its calls."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from attrs import define, field

# The interpreter's path may hold a space, which a first line can't name.
SCRIPT = """#!/bin/sh
'''exec' "{python}" -IS "$0" "$@"
' '''
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with (here / "calls.jsonl").open("a") as calls:
    print(json.dumps({{"argv": arguments, "backends": os.environ.get("OLLAMA_BACKENDS")}}), file=calls)
if arguments[0] == "compose":
    arguments = ["compose", *arguments[3:]]
reply = json.loads((here / "replies.json").read_text()).get(" ".join(arguments[:2]), [0, "", ""])
sys.stdout.write(reply[1])
sys.stderr.write(reply[2])
sys.exit(reply[0])
"""


def inspected(name: str, image: str, *networks: str, **environ: str) -> dict[str, Any]:
    """One entry of `docker inspect` (API 1.50), cut down to the fields around those that count."""
    return {
        "Id": name.encode().hex().ljust(64, "0"),
        "Created": "2026-01-12T09:14:03.512345678Z",
        "Path": "/bin/ollama",
        "Args": ["serve"],
        "State": {"Status": "running", "Running": True, "Pid": 4242, "ExitCode": 0},
        "Image": "sha256:" + "ab" * 32,
        "Name": f"/{name}",
        "Config": {
            "Hostname": "0123456789ab",
            "Env": ["PATH=/usr/bin:/bin", *(f"{key}={value}" for key, value in environ.items())],
            "Image": image,
            "Labels": {"com.docker.compose.service": name},
        },
        "NetworkSettings": {
            "Ports": {"11434/tcp": None},
            "Networks": {
                network: {"Aliases": [name], "IPAddress": "172.20.0.2", "DNSNames": [name]}
                for network in networks
            },
        },
    }


@define
class Docker:
    """The stand-in, on a PATH of its own."""

    folder: Path
    containers: list[dict[str, Any]] = field(factory=list)
    replies: dict[str, tuple[int, str, str]] = field(factory=dict)

    def install(self) -> None:
        """Put it in place, as it is described now."""
        self.folder.mkdir(exist_ok=True)
        program = self.folder / "docker"
        program.write_text(SCRIPT.format(python=sys.executable))
        program.chmod(0o755)
        ids = [container["Id"] for container in self.containers]
        gateways = [entry["Id"] for entry in self.containers if "caddy" in entry["Name"]]
        replies = {
            "ps --quiet": (0, "".join(f"{id_}\n" for id_ in ids), ""),
            f"inspect {ids[0] if ids else ''}": (0, json.dumps(self.containers, indent=4), ""),
            "compose ps": (0, "".join(f"{id_}\n" for id_ in gateways), ""),
            **self.replies,
        }
        (self.folder / "replies.json").write_text(json.dumps(replies))

    def calls(self) -> list[list[str]]:
        """What it was asked."""
        return [call["argv"] for call in self._lines()]

    def seen_backends(self) -> set[str | None]:
        """The OLLAMA_BACKENDS that it found in its environment."""
        return {call["backends"] for call in self._lines()}

    def _lines(self) -> list[dict[str, Any]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
