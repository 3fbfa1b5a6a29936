"""`generalist serve MODEL`: the model behind HTTP, with a page to try it."""

from __future__ import annotations

import argparse
from pathlib import Path

from generalist.commands.predict import precision_flag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a run's folder, or a model folder")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="the port (default 8000; 0 takes a free one)")
    parser.add_argument(
        "--prompts", action="append", default=[], metavar="NAME=FILE", help="prompts that a request may ask for by name"
    )
    parser.add_argument("--index", type=Path, metavar="DIR", help="an index of this model: what is most like an input")
    parser.add_argument("--batch", type=int, default=64, help="requests answered in one pass at most (default 64)")
    parser.add_argument("--waiting", type=int, default=1024, help="requests that may wait (default 1024)")
    precision_flag(parser)
    parser.add_argument("--body-mb", type=int, default=64, help="what one request may send (default 64)")


def run(args: argparse.Namespace) -> int:
    from generalist.data.base.errors import UserError

    try:
        import uvicorn

        from generalist.serve.app import app_of
    except ImportError as error:
        raise UserError(f"{error}: pip install 'generalist-encoder[serve]'") from error
    prompts = {}
    for word in args.prompts:
        name, sign, file = word.partition("=")
        if not sign or not name:
            raise UserError(f"--prompts {word!r} is not NAME=FILE")
        prompts[name] = Path(file)
    if min(args.batch, args.waiting, args.body_mb) < 1:
        raise UserError("--batch, --waiting and --body-mb are at least 1")
    app = app_of(args.model, prompts, args.batch, args.waiting, args.body_mb, args.precision, args.index)
    print(f"http://{args.host}:{args.port}/   the page; /about says what can be asked; Ctrl-C ends it", flush=True)
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning")
    return 0
