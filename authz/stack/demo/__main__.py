"""`python -m authz.stack.demo --port N`: serve the demo backend until a signal ends it."""

import sys
from argparse import ArgumentParser

import uvicorn

from authz.stack.demo.app import Demo


def main() -> int:
    """Read the arguments and serve; loop and parser are the gateway's own."""
    parser = ArgumentParser(prog="python -m authz.stack.demo", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    uvicorn.run(
        Demo(),
        host="127.0.0.1",
        port=parser.parse_args().port,
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
