"""What `doctor` finds of private keys that no server may have."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from attrs import evolve
from nacl.public import PrivateKey as VaultKey

from authz.accounts import vault
from authz.accounts.vault import PrivateKeys
from authz.chains.checkpoint import PrivateKey
from authz.settings import Settings
from authz.stack.doctor import private_keys
from authz.stack.doctor.finding import Finding, Level

OPENS = vault.PRIVATE + base64.b64encode(bytes(VaultKey.generate())).decode()
SIGNS = str(PrivateKey.make("neuronetz-gateway"))

OF_VAULT = (
    "holds the vault's private key, which opens every prompt: move it to a machine that no client reaches"
)
OF_SIGNER = "holds the private key that signs checkpoints, by which altered books could be signed: move it"


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    """A server with a state folder and a public key, which is elsewhere."""
    state, public = tmp_path / "state", tmp_path / "etc" / "vault.pub"
    (state / "inner").mkdir(parents=True)
    public.parent.mkdir()
    vault.write_public(public, [VaultKey.generate().public_key], is_new=True)
    (public.parent / "signer.pub").write_text(f"{PrivateKey.make('x').public}\n")
    return evolve(Settings(state=state), prompt_key=public, pepper_file=tmp_path / "secrets" / "pepper")


def found(settings: Settings, **environ: str) -> list[Finding]:
    """Return what is found there."""
    return private_keys.judge(private_keys.gather(settings, environ))


def test_public_keys_are_where_they_belong(here: Settings) -> None:
    """Nothing is wrong with public keys, and with what clients wrote into the journal."""
    here.journal.parent.mkdir()
    here.journal.write_text(f'{{"model_asked":"{OPENS}","path":"{SIGNS}"}}\n')
    (finding,) = found(here, GATEWAY_PROMPT_KEY=str(here.prompt_key), HOME="/root")
    assert Level.OK is finding.level


@pytest.mark.parametrize("place", ["state", "state/inner", "etc", "secrets", "state/journal"])
@pytest.mark.parametrize(("key", "sentence"), [(OPENS, OF_VAULT), (SIGNS, OF_SIGNER)])
def test_a_key_in_a_file(here: Settings, tmp_path: Path, place: str, key: str, sentence: str) -> None:
    """In a folder that a setting names, beside a public key, behind another line: a failure that names it."""
    stray = tmp_path / place / "old.key"
    stray.parent.mkdir(exist_ok=True)
    stray.write_text(f"# kept\n{key}\n")
    (finding,) = found(here)
    assert Level.FAIL is finding.level
    assert finding.sentence.startswith(f"{stray} {sentence}")
    assert key[-40:] not in finding.sentence


@pytest.mark.parametrize(("key", "sentence"), [(OPENS, OF_VAULT), (SIGNS, OF_SIGNER)])
def test_a_key_in_the_environment(here: Settings, key: str, sentence: str) -> None:
    """A variable with the key itself in place of a path."""
    (finding,) = found(here, GATEWAY_PROMPT_KEY=key)
    assert Level.FAIL is finding.level
    assert finding.sentence.startswith(f"The variable GATEWAY_PROMPT_KEY {sentence}")


def test_a_key_that_took_the_public_ones_place(here: Settings) -> None:
    """The file that Caddy reads is looked at, as all that a command writes."""
    PrivateKeys(()).with_new().write(here.prompt_key, is_new=False)
    (finding,) = found(here)
    assert finding.sentence.startswith(f"{here.prompt_key} {OF_VAULT}")
