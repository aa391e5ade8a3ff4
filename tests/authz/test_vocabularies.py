"""The vocabularies of the backends' models, which authz writes for Caddy to price prompts by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from attrs import define, field

from authz.backends import vocabularies
from authz.backends.backend import Backend
from authz.backends.inventory import Inventory
from authz.backends.tables import Tables
from authz.backends.vocabularies import RETRY_S, Vocabularies
from authz.stack.demo.exchange import Receive, Scope, Send
from tests.backend.serving import served

TOY: Final = "a" * 64
OTHER: Final = "b" * 64


@define
class Models:
    """A backend that says what a test wants of its models."""

    digests: dict[str, str] = field(factory=dict)
    show: bytes = b'{"model_info":{}}'
    status: int = 200
    shown: list[Any] = field(factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer every path that an inventory asks for."""
        body = (await receive())["body"]
        tags = [{"name": name, "digest": digest} for name, digest in self.digests.items()]
        answers = {
            "/api/version": b'{"version":"0.0.0"}',
            "/api/ps": b'{"models":[]}',
            "/api/tags": msgspec.json.encode({"models": tags}),
            "/api/show": self.show,
        }
        is_show = scope["path"] == "/api/show"
        if is_show:
            self.shown.append(msgspec.json.decode(body))
        status = self.status if is_show else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answers[scope["path"]]})


@define
class World:
    """One process of authz on a folder, and its clock."""

    inventory: Inventory
    vocabularies: Vocabularies
    folder: Path
    now_s: list[float]

    async def look(self, after_s: float = 0) -> dict[str, list[str]]:
        """Ask the backend, update the folder, and return the models of its index."""
        self.now_s[0] += after_s
        backends = self.inventory.backends
        self.inventory.use(())  # what it knows is forgotten
        self.inventory.use(backends)
        await self.inventory.looked(within_s=10)
        await self.vocabularies.update()
        index = self.folder / "index.json"
        return msgspec.json.decode(index.read_bytes())["models"] if index.exists() else {}

    def files(self) -> set[str]:
        """Return the names of the files of models."""
        return {path.name for path in self.folder.iterdir()} - {"lock", "index.json"}


@pytest.fixture
def models() -> Models:
    """A backend's models."""
    return Models({"Toy": TOY})


@pytest.fixture
def url(models: Models) -> Iterator[str]:
    """Serve that backend."""
    with served(models) as url:
        yield url


def _world(inventory: Inventory, folder: Path) -> World:
    now_s = [0.0]
    return World(inventory, Vocabularies(inventory, folder, poll_s=1, now_s=lambda: now_s[0]), folder, now_s)


@pytest.fixture
async def inventory(url: str) -> AsyncIterator[Inventory]:
    """The inventory of that backend."""
    made = Inventory((Backend("default", url),), poll_s=3600)
    yield made
    made.use(())


@pytest.fixture
def world(inventory: Inventory, tmp_path: Path) -> World:
    """A process of authz that has a folder to itself."""
    return _world(inventory, tmp_path / "tables")


async def test_a_model_is_described_once(world: World, models: Models) -> None:
    """A backend is asked once for each digest, in full, whatever its names are; then it is in the index."""
    models.digests = {"Toy": TOY, "toy:copy": TOY}
    assert {"toy:latest": [TOY], "toy:copy": [TOY]} == await world.look()
    await world.look()
    assert [{"model": "Toy", "verbose": True}] == models.shown
    assert models.show == Tables(world.folder).show(TOY).read_bytes()


async def test_one_process_asks(world: World, models: Models, inventory: Inventory) -> None:
    """Of two processes on a folder only the first asks."""
    await world.look()
    models.digests["other"] = OTHER
    await _world(inventory, world.folder).look()
    assert 1 == len(models.shown)


async def test_a_removed_model_is_forgotten(world: World, models: Models) -> None:
    """Its files go, but not the count of what exceeded its bound."""
    await world.look()
    for kind in ("table", "exceeded"):
        (world.folder / f"{TOY}.{kind}").write_text("1")
    models.digests = {"other": OTHER}
    assert {"other:latest": [OTHER]} == await world.look()
    assert {f"{TOY}.exceeded", f"{OTHER}.show.json"} == world.files()


async def test_no_description_is_asked_for_later(world: World, models: Models) -> None:
    """A backend that fails is not asked again at once, and leaves nothing behind."""
    models.status = 500
    await world.look()
    await world.look(RETRY_S - 1)
    assert (1, set()) == (len(models.shown), world.files())
    models.status = 200
    await world.look(1)
    assert {f"{TOY}.show.json"} == world.files()


async def test_a_huge_description_is_none(
    world: World, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend can send anything: what is too large is not kept."""
    monkeypatch.setattr(vocabularies, "MOST_BYTES", 1000)
    models.show = b"x" * 1001
    await world.look()
    assert set() == world.files()


async def test_many_models_fill_no_disk(
    world: World, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many models a backend names: what would make all too large is not kept, until there is room."""
    models.show = b"x" * 1000
    await world.look()
    size = Tables(world.folder).size()
    monkeypatch.setattr(vocabularies, "MOST_BYTES_IN_ALL", size + 1000)
    models.digests |= {"other": OTHER, "third": "c" * 64}
    await world.look()
    assert {f"{TOY}.show.json", f"{OTHER}.show.json"} == world.files()
    del models.digests["Toy"]
    await world.look(after_s=RETRY_S)
    await world.look(after_s=RETRY_S)
    assert {f"{OTHER}.show.json", f"{'c' * 64}.show.json"} == world.files()


async def test_a_digest_is_no_path(world: World, models: Models) -> None:
    """A text that is no digest names no file."""
    models.digests = {"toy": "../" + TOY, "other": "A" * 64, "third": ""}
    assert {} == await world.look()
    assert ([], set()) == (models.shown, world.files())


async def test_status_names_the_models_without_a_table(world: World) -> None:
    """Each with the reason, until Caddy has made its table."""
    tables = Tables(world.folder)
    assert () == tables.untabled()
    await world.look()
    (building,) = tables.untabled()
    assert ("toy:latest", TOY, "it is being built") == (building.model, building.digest, building.problem)
    (world.folder / f"{TOY}.table").touch()
    assert () == tables.untabled()
    (world.folder / f"{TOY}.failed").write_text("no merges were sent\n")
    assert ["no merges were sent"] == [model.problem for model in tables.untabled()]
    (world.folder / f"{TOY}.exceeded").write_text("3\n")
    assert [3] == [model.exceeded for model in tables.untabled()]
    tables.show(TOY).unlink()
    (world.folder / "index.json").write_text("{")
    assert () == tables.untabled()
