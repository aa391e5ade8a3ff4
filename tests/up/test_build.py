"""Caddy is built once per content of its sources."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from authz.errors import CommandError
from authz.stack import build
from authz.stack.build import caddy_binary

PROGRAM = "package main\n\nfunc main() { println(%s) }\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that needs no module, in the place of Caddy."""
    main = tmp_path / "cmd" / "caddy" / "main.go"
    main.parent.mkdir(parents=True)
    (tmp_path / "go.mod").write_text("module example\n\ngo 1.26\n")
    main.write_text(PROGRAM % 1)
    monkeypatch.setattr(build, "SOURCE", tmp_path)
    return main


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A cache of its own for results, and the usual one for what is compiled on the way."""
    cache = tmp_path / "cache" / "neuronetz-gateway"
    cache.mkdir(parents=True)
    (cache / "go-build").symlink_to(build.cache_folder(os.environ) / "go-build")
    return {**os.environ, "XDG_CACHE_HOME": str(cache.parent)}


def _output(binary: Path) -> str:
    return subprocess.run([binary], check=True, capture_output=True, text=True).stderr.strip()


def test_same_content_is_built_once(source: Path, environ: dict[str, str]) -> None:
    """Only what decides about the binary makes another one: not a test, not a touch."""
    first = caddy_binary(environ, lambda _: None)
    made = first.stat().st_ino
    source.touch()
    source.with_name("main_test.go").write_text("package main\n")

    assert "1" == _output(first)
    assert first == caddy_binary(environ, lambda _: None)
    assert made == first.stat().st_ino


def test_other_content_is_built_beside(source: Path, environ: dict[str, str]) -> None:
    """A changed source makes another binary, and the last three are kept."""
    for number in range(4):
        source.write_text(PROGRAM % number)
        assert str(number) == _output(caddy_binary(environ, lambda _: None))

    assert 3 == len(list(build.cache_folder(environ).glob("caddy-*")))


def test_sources_that_do_not_compile(source: Path, environ: dict[str, str]) -> None:
    """The compiler's message is reported, and no binary is left."""
    source.write_text("package main\n\nfunc main() { nonsense() }\n")

    with pytest.raises(CommandError, match="undefined: nonsense"):
        caddy_binary(environ, lambda _: None)

    assert [] == list(build.cache_folder(environ).glob("caddy-*"))


def test_missing_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package has no sources of Caddy: it says so."""
    monkeypatch.setattr(build, "SOURCE", tmp_path)

    with pytest.raises(CommandError, match="run from a checkout"):
        caddy_binary(os.environ, lambda _: None)
