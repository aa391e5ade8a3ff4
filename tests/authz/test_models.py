"""Model names and allowlists."""

from __future__ import annotations

import pytest

from authz.models import canonical, is_allowed, is_cloud, is_pattern


@pytest.mark.parametrize(
    "name",
    [
        "llama3",
        "LLAMA3:latest",
        " llama3 ",
        "library/llama3",
        "registry.ollama.ai/library/llama3:latest",
        "https://registry.ollama.ai/library/llama3",
    ],
)
def test_spellings_of_one_model(name: str) -> None:
    """Every spelling that Ollama takes for a model is that model."""
    assert "llama3:latest" == canonical(name)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("llama3", "llama3:8b"),
        ("me/llama3", "llama3"),
        ("host:5000/library/llama3", "llama3"),
        ("llama3", "llama33"),
    ],
)
def test_other_models(name: str, other: str) -> None:
    """Another tag, namespace or host is another model."""
    assert canonical(name) != canonical(other)


@pytest.mark.parametrize(
    ("name", "allowlist", "expected"),
    [
        ("llama3", None, True),
        ("llama3", (), False),
        ("llama3", ("llama3",), True),
        ("LLAMA3:latest", ("library/llama3",), True),
        ("llama3:8b", ("llama3",), False),
        ("llama3:8b", ("llama3:*",), True),
        ("llama3:8b", ("llama*",), True),
        ("me/llama3", ("llama*",), False),
        ("mistral", ("llama*", "mistral"), True),
        ("qwen:cloud", None, False),
        ("gpt-oss:20b-CLOUD", ("*",), False),
    ],
)
def test_allowlist(name: str, allowlist: tuple[str, ...] | None, expected: bool) -> None:
    """A key may use what its allowlist names; no key may use a cloud model."""
    assert expected == is_allowed(name, allowlist)


@pytest.mark.parametrize("name", ["x:cloud", "X:Cloud", "x:20b-cloud", " x:cloud "])
def test_cloud(name: str) -> None:
    """A cloud tag is one in any spelling."""
    assert is_cloud(name)


@pytest.mark.parametrize(
    ("text", "expected"), [("a", True), ("a:*", True), ("", False), ("a b", False), ("[a]", False)]
)
def test_pattern(text: str, expected: bool) -> None:
    """Only what can match a model name may stand in an allowlist."""
    assert expected == is_pattern(text)
