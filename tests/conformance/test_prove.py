"""`doctor --prove` in front of the real Ollama."""

from __future__ import annotations

import json

from tests.gateway import Gateway


def test_every_rule_is_proven_in_front_of_ollama(gateway: Gateway) -> None:
    """The real answers of each route are in the ledger as reported, and every rule holds."""
    done = gateway.run("doctor", "--prove", "--json")
    found = json.loads(done.stdout)["findings"]
    assert (0, []) == (done.returncode, [each for each in found if each["level"] == "fail"])
    billed = [each["sentence"] for each in found if each["check"] == "bill"]
    assert ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions"] == [
        sentence.partition(":")[0] for sentence in billed[:4]
    ]
