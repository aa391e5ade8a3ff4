"""What the demo will say to one call: decided whole before the first token is sent."""

from typing import Final

from attrs import evolve, frozen

from authz.demo import knobs, tools
from authz.demo.knobs import Knobs
from authz.demo.types import CONTEXT_TOKENS, Call, Model, ToolCall, Turn
from authz.demo.words import Memory, cycle, pieces

_DEFAULT_TOKENS: Final = 32
_THINK_TOKENS: Final = 4
_REPEATS: Final = 5000
_REPEAT_LIMIT: Final = 101
_REPEATED: Final = " same"


@frozen
class Script:
    """One planned answer: reasoning, then words or a tool call; `is_cut` by the output cap."""

    knobs: Knobs
    prompt: str
    input_tokens: int
    cached_tokens: int
    think: tuple[str, ...]
    words: tuple[str, ...]
    tool_call: ToolCall | None
    is_cut: bool
    is_native: bool
    """Ollama's chat path; else its completion path, which fails in other words."""

    @property
    def gives_up(self) -> bool:
        """Say whether the completion path stops at its limit of repetitions, without an end."""
        return not self.is_native and self.words[-_REPEAT_LIMIT:] == (_REPEATED,) * _REPEAT_LIMIT

    @property
    def tool_tokens(self) -> int:
        """Count a call's tokens: the words of its arguments, and one for its name."""
        return len(self.tool_call.arguments.split()) + 1 if self.tool_call else 0


def plan(call: Call, model: Model, memory: Memory, *, greeting: str, pace_ms: int) -> Script:
    """Decide the whole answer; without knobs that ask for words it is the greeting, at a pace."""
    prompt = _rendered(call)
    words = prompt.split()
    wishes = knobs.read(_asked(call))
    if _is_unasked(wishes):
        wishes = evolve(wishes, delay_ms=max(wishes.delay_ms, pace_ms))
    # A real server drops the oldest turns of a prompt that is longer than its context.
    input_tokens = min(len(words) + 1, CONTEXT_TOKENS)
    cached = min(memory.cached(words), input_tokens - 1)
    is_native = call.chat and not model.can("insert")
    script = Script(
        knobs=wishes,
        prompt=prompt,
        input_tokens=input_tokens,
        cached_tokens=cached if wishes.cached is None else min(wishes.cached, input_tokens),
        think=_thoughts(call, model, wishes) if is_native else (),
        words=(),
        tool_call=_tool_call(call, wishes) if is_native else None,
        is_cut=False,
        is_native=is_native,
    )
    if script.tool_call is None:
        script = evolve(script, words=_answer(call, script, greeting))
    return _capped(script, call.max_output)


def _is_unasked(wishes: Knobs) -> bool:
    return wishes.tokens is None and not wishes.mode and not wishes.say


def _asked(call: Call) -> str:
    if call.raw_prompt is not None:
        return call.raw_prompt
    return next((turn.text for turn in reversed(call.turns) if turn.role == "user"), "")


def _rendered(call: Call) -> str:
    if call.raw_prompt is not None:
        return call.raw_prompt
    if call.suffix:
        return f"<|prefix|> {_asked(call)} <|suffix|> {call.suffix} <|middle|>"
    # This layout is what makes a prompt cost its words, one per turn and two more.
    listed = ",".join(tool.text for tool in call.tools)
    head = f"<|tools|> [{listed}]\n" if listed else ""
    return head + "".join(map(_rendered_turn, call.turns)) + "<|assistant|>"


def _rendered_turn(turn: Turn) -> str:
    calls = f" {turn.tool_calls}" if turn.tool_calls else ""
    return f"<|{turn.role}|> {turn.text}{calls}\n"


def _thoughts(call: Call, model: Model, wishes: Knobs) -> tuple[str, ...]:
    # A thinking model thinks unless it is asked not to; any other only when a knob says so.
    wanted = _THINK_TOKENS if model.can("thinking") and call.think is not False else 0
    count = wanted if wishes.think is None else wishes.think
    return tuple(f" step{number}" for number in range(1, count + 1))


def _tool_call(call: Call, wishes: Knobs) -> ToolCall | None:
    if not call.tools or wishes.tool is False or call.format:
        return None
    # The answer to a tool's result is text, or the conversation would never end.
    if call.turns[-1].role != "user" and not wishes.tool:
        return None
    return tools.call(call.tools, _asked(call))


def _answer(call: Call, script: Script, greeting: str) -> tuple[str, ...]:
    wishes = script.knobs
    told = wishes.say or tools.json_answer(call.format, call.schema)
    if not told and _is_unasked(wishes):
        told = greeting
    if told:
        words = pieces(told)[: wishes.tokens]
    else:
        words = cycle(_DEFAULT_TOKENS if wishes.tokens is None else wishes.tokens)
    if wishes.mode == "repeat":
        # Ollama's completion path gives up after 100 repetitions; its chat path never does.
        repeats = _REPEATS if script.is_native else _REPEAT_LIMIT
        words = cycle(wishes.at) + [_REPEATED] * repeats
    return tuple(_until(words, call.stop))


def _until(words: list[str], stops: tuple[str, ...]) -> list[str]:
    whole = "".join(words)
    ends = [at for stop in stops if stop and (at := whole.find(stop)) >= 0]
    return pieces(whole[: min(ends)]) if ends else words


def _capped(script: Script, cap: int | None) -> Script:
    room = cap if cap is not None and cap > 0 else None
    if room is None or len(script.think) + len(script.words) + script.tool_tokens <= room:
        return script
    # A call that does not fit is never whole, and half a call is not shown.
    return evolve(
        script,
        think=script.think[:room],
        words=script.words[: max(0, room - len(script.think))],
        tool_call=None,
        is_cut=True,
    )
