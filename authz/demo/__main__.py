"""`python -m authz.demo --port N`: serve the demo backend until it is told to stop."""

import sys
from argparse import ArgumentParser

import uvicorn

from authz.demo.app import create
from authz.demo.backend import DEFAULT_MODELS, named


def main() -> int:
    """Read the arguments and serve; the loop and parser are the gateway's own."""
    default = ",".join(model.name for model in DEFAULT_MODELS)
    parser = ArgumentParser(prog="python -m authz.demo", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument(
        "--models",
        default=default,
        help="names; -embed, -think and -tpl at the end say what a model can do",
    )
    parser.add_argument("--pace-ms", type=int, default=20, help="pause before each greeted word")
    arguments = parser.parse_args()
    models = [named(name) for name in arguments.models.split(",")]
    uvicorn.run(
        create(models, pace_ms=arguments.pace_ms),
        host=arguments.host,
        port=arguments.port,
        http="httptools",
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
