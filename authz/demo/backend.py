"""The state of a demo backend: its models and their memories, the gates and the tally."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from attrs import define, field

from authz.demo.gate import Gates
from authz.demo.tally import Tally
from authz.demo.types import Clock, Model
from authz.demo.words import Memory

GREETING: Final = (
    "Hello! This is the built-in demo backend of neuronetz-gateway: no language model runs here, "
    "these words are canned. To get real answers, set OLLAMA_URL to the address of your Ollama, "
    "for example OLLAMA_URL=http://127.0.0.1:11434, and start the gateway again."
)
_CAPABILITIES: Final = {
    "embed": ("embedding",),
    "think": ("tools", "thinking", "completion"),
    "tpl": ("completion", "insert"),
}


def named(name: str) -> Model:
    """Make a model whose name says what it can do: `-embed`, `-think`, `-tpl`, else chat."""
    capabilities = _CAPABILITIES.get(name.rpartition("-")[2], ("tools", "completion"))
    return Model(name, capabilities, context_tokens=512 if "embedding" in capabilities else 32_768)


DEFAULT_MODELS: Final = (named("demo"), named("demo-embed"))


def now() -> datetime:
    """Tell the time that replies carry."""
    return datetime.now(UTC)


@define
class Backend:
    """A demo backend; two of them share nothing."""

    models: Sequence[Model] = DEFAULT_MODELS
    greeting: str = GREETING
    """What a request without knobs is told; empty for the words of the cycle."""
    clock: Clock = now
    pace_ms: int = 0
    """Pause before each word of the greeting, so that a person sees it stream."""
    gates: Gates = field(factory=Gates)
    tally: Tally = field(init=False)
    started: datetime = field(init=False)
    _memories: dict[str, Memory] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        """Start with an empty tally on the given clock."""
        self.tally = Tally(self.clock)
        self.started = self.clock()

    def model(self, name: str) -> Model | None:
        """Find a model by its name, in any case and with or without `:latest`."""
        # As far as Ollama's canonical names matter here: no host, no namespace, one tag.
        wanted = name.lower().removesuffix(":latest")
        return next((model for model in self.models if model.name == wanted), None)

    def memory(self, model: Model) -> Memory:
        """Load a model, or go on with what it remembers."""
        return self._memories.setdefault(model.name, Memory())

    def unload(self, model: Model) -> None:
        """Forget a model's memory."""
        self._memories.pop(model.name, None)

    @property
    def loaded(self) -> list[Model]:
        """The models in memory, the newest first."""
        return [model for name in reversed(self._memories) if (model := self.model(name))]

    def clear(self) -> None:
        """Be as new: nothing loaded, nothing counted, no gate open."""
        self._memories.clear()
        self.gates.clear()
        self.tally.clear()
