"""Compare the bounds of honest requests with what they really cost, and measure how fast they are priced.

`just bench-bound` runs it with the packages that it needs besides: `tokenizers` and `jinja2`. The truth is
each model's own template and tokenizer. It fails above the ratio that is promised.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from authz.stack.build import SOURCE, go_environ
from authz.stack.embedded import wheel_folder
from tests.bound.published import PUBLISHED, Published
from tests.bound.shapes import SHAPES, body_of

MOST: Final = 2.5
"""Times the truth, of a request of more than a few words."""
MOST_OF_A_SHORT_ONE: Final = 512
"""Tokens above the truth, of a request of a few words."""
_CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
)
_LINE: Final = re.compile(
    r"BenchmarkBound/([\w-]+)/([\w-]+?)(?:-\d+)?\s+\d+\s+\S+ ns/op\s+(\S+) MB/s\s+([\d.]+) tokens"
)


def main() -> int:
    """Print a line for each model and shape; return 1 if a bound is not what is promised."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in PUBLISHED:
            (folder / f"{model.name}.show.json").write_text(json.dumps(model.show()))
        for shape, request in SHAPES.items():
            (folder / f"{shape}.body.json").write_bytes(body_of(request))
        measured = _measure(folder)
    wrong = 0
    for model in PUBLISHED:
        for shape, request in SHAPES.items():
            truth = _truth(model, request)
            if truth is None:
                continue
            bound, speed = measured[model.name, shape]
            is_near = bound <= max(MOST * truth, truth + MOST_OF_A_SHORT_ONE)
            is_right = truth <= bound and is_near
            wrong += not is_right
            sys.stdout.write(
                f"{model.name:14}{shape:18}{truth:8} tokens, bound {bound:8}, {bound / truth:5.2f} times, "
                f"{speed:6.1f} MB/s{'' if is_right else '  WRONG'}\n"
            )
    return int(wrong > 0)


def _measure(folder: Path) -> dict[tuple[str, str], tuple[int, float]]:
    """Let the gateway price every body by every vocabulary."""
    argv = [str(wheel_folder("go") / "bin" / "go"), "test", "-run", "^$", "-bench", "^BenchmarkBound$"]
    done = subprocess.run(
        [*argv, "-benchtime", "50ms", "."],
        cwd=SOURCE,
        env={**go_environ(os.environ), "GATEWAY_BENCH_BOUND": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    return {
        (model, shape): (round(float(bound)), float(speed))
        for model, shape, speed, bound in _LINE.findall(done.stdout)
    }


def _truth(model: Published, request: dict[str, Any]) -> int | None:
    """Count the tokens of a request by the model's own template; None where that has no tools."""
    template = model.template() or _CHATML
    if "tools" in request and "tools" not in template:
        return None
    environment = import_module("jinja2.sandbox").ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda _: "26 Jul 2026"
    words = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, **request}
    try:
        text = environment.from_string(template).render(**words)
    except _Unfit:
        return None
    tokenizer = import_module("tokenizers").Tokenizer.from_str(json.dumps(model.tokenizer()))
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


class _Unfit(Exception):
    """The template does not take the request."""


def _raise(why: str) -> None:
    raise _Unfit(why)


if __name__ == "__main__":
    sys.exit(main())
