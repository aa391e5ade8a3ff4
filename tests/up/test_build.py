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
    """An installed package has no sources of Caddy: it says so, and which wheel to install."""
    monkeypatch.setattr(build, "SOURCE", tmp_path)

    with pytest.raises(CommandError, match=r"`pip install neuronetz-gateway-caddy` .* run from a checkout"):
        caddy_binary(os.environ, lambda _: None)


def _install(folder: Path, package: str, digest: str) -> None:
    """Install a package as an installer leaves it, made from the sources of this digest."""
    metadata = folder / f"{package.replace('-', '_')}-7.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {package}\nVersion: 7.0\n")
    (metadata / "caddy.digest").write_text(f"{digest}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that stands before all others."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    return site


def test_wheel_of_these_sources_is_used(source: Path, environ: dict[str, str], site: Path) -> None:
    """A wheel that carries the Caddy of these very sources saves building it."""
    _install(site, "neuronetz-gateway-caddy", build.source_digest())

    assert site / "neuronetz_gateway_caddy" / "caddy" == caddy_binary(environ, lambda _: None)
    assert [] == list(build.cache_folder(environ).glob("caddy-*"))
    assert source.parents[2] / "Caddyfile" == build.caddy_config()


@pytest.mark.usefixtures("source")
def test_wheel_of_other_sources_is_not_used(environ: dict[str, str], site: Path) -> None:
    """In a checkout a wheel that does not fit is passed over, which is noted in one sentence."""
    _install(site, "neuronetz-gateway-caddy", "other")
    notes: list[str] = []

    assert "1" == _output(caddy_binary(environ, notes.append))
    assert "neuronetz-gateway-caddy 7.0 holds another Caddy than these sources, and is not used" == notes[-1]


def test_wheels_of_one_build_fit(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a checkout the wheel's Caddy and its Caddyfile are used with the package of the same build."""
    monkeypatch.setattr(build, "SOURCE", tmp_path)
    _install(site, "neuronetz-gateway-caddy", "same")
    _install(site, "neuronetz-gateway", "same")

    assert site / "neuronetz_gateway_caddy" / "caddy" == caddy_binary(os.environ, lambda _: None)
    assert site / "neuronetz_gateway_caddy" / "Caddyfile" == build.caddy_config()


@pytest.mark.parametrize("expected", ["other", ""])
def test_wheels_of_two_builds_do_not_fit(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch, expected: str
) -> None:
    """Outside a checkout another Caddy is refused in one sentence, as is any where none is expected."""
    monkeypatch.setattr(build, "SOURCE", tmp_path)
    _install(site, "neuronetz-gateway-caddy", "")
    _install(site, "neuronetz-gateway", expected)

    with pytest.raises(CommandError, match=r"neuronetz-gateway-caddy 7\.0 was built .* from one release"):
        caddy_binary(os.environ, lambda _: None)
