"""Play a script: one line per frame, at its pace, through its gate, into its fault."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from time import monotonic_ns
from typing import Final

from attrs import frozen

from authz.demo.gate import Gates
from authz.demo.script import Script
from authz.demo.tally import Entry
from authz.demo.types import Call, Failure, Line, Logprob, Usage
from authz.demo.words import Memory

_CRASHED: Final = "GGML_ASSERT(scripted) failed"
_SCRIPTED_STATUS: Final = (
    '{{"error":{{"code":{code},"message":"scripted failure","type":"invalid_request_error"}}}}'
)


@frozen
class Frame:
    """Tokens that leave together: `count` of them are produced once its gate has opened."""

    line: Line
    count: int
    first: int
    """Position of its first token in the answer, where a fault may strike."""


async def play(
    call: Call, script: Script, *, memory: Memory, gates: Gates, entry: Entry
) -> AsyncGenerator[Line | Failure, None]:
    """Yield the answer line by line; `entry` counts each token just before its line is yielded.

    The last line has a reason, unless a fault ends the answer before.
    """
    start_ns = monotonic_ns()
    wishes = script.knobs
    if wishes.mode == "status":
        entry.end = "status"
        yield Failure(_SCRIPTED_STATUS.format(code=wishes.code), status=wishes.code)
        return
    await asyncio.sleep(wishes.first_ms / 1000)
    first_ns = monotonic_ns()
    for frame in _frames(call, script):
        await asyncio.sleep(wishes.delay_ms * frame.count / 1000)
        if wishes.mode and frame.first + frame.count > wishes.at and wishes.mode != "repeat":
            await _hang(wishes.mode)
            entry.end = wishes.mode
            if failure := _failure(script, is_first=frame.first == 0):
                yield failure
            return
        await gates.take(wishes.hold)
        entry.output_tokens += frame.count
        yield frame.line
    if script.gives_up:
        entry.end = "repeat"
        yield Failure("prediction aborted, token repeat limit reached")
        return
    await gates.take(wishes.hold)
    entry.output_tokens += script.tool_tokens
    yield _last(call, script, memory, entry=entry, start_ns=start_ns, first_ns=first_ns)


def _frames(call: Call, script: Script) -> Iterator[Frame]:
    for group, is_thought in ((script.think, True), (script.words, False)):
        offset = 0 if is_thought else len(script.think)
        for at in range(0, len(group), script.knobs.glue):
            tokens = group[at : at + script.knobs.glue]
            text = "".join(tokens)
            line = Line(
                content="" if is_thought else text,
                thinking=text if is_thought else "",
                logprobs=_logprobs(text, call.top_logprobs),
            )
            yield Frame(line, count=len(tokens), first=offset + at)


def _logprobs(text: str, top: int | None) -> tuple[Logprob, ...]:
    if top is None:
        return ()
    others = (f" alt{number}" for number in range(1, top))
    return (Logprob(text, (text, *others) if top else ()),)


async def _hang(mode: str) -> None:
    if mode == "hang":
        await asyncio.Event().wait()


def _failure(script: Script, *, is_first: bool) -> Failure | None:
    mode, chat = script.knobs.mode, " chat" if script.is_native else ""
    if mode == "crash" and is_first:
        return Failure(
            "model runner has unexpectedly stopped, this may be due to resource limitations or an"
            f" internal error, check ollama server logs for details: {_CRASHED}"
        )
    if mode == "crash":
        return Failure(f"an error was encountered while running the model: {_CRASHED}")
    if mode == "garbage":
        return Failure(
            f"error unmarshalling llama-server{chat} response:"
            " invalid character 'b' looking for beginning of value"
        )
    # The completion path swallows an error of the runner: its stream just ends.
    if mode == "error" and script.is_native:
        return Failure(
            "llama-server chat error: map[code:500 message:scripted mid-stream failure type:server_error]"
        )
    return None


def _last(call: Call, script: Script, memory: Memory, *, entry: Entry, start_ns: int, first_ns: int) -> Line:
    now_ns = monotonic_ns()
    entry.end = "length" if script.is_cut else "stop"
    said = "".join(script.words)
    has_context = not call.chat and call.raw_prompt is None
    return Line(
        tool_calls=(script.tool_call,) if script.tool_call else (),
        reason=entry.end,
        usage=Usage(
            input_tokens=script.input_tokens,
            output_tokens=entry.output_tokens,
            cached_tokens=script.cached_tokens,
            total_ns=now_ns - start_ns + 1,
            eval_ns=now_ns - first_ns + 1,
        ),
        context=memory.token_ids(script.prompt + said) if has_context else None,
    )
