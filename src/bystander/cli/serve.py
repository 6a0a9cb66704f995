"""The live page of a run: one address of this machine, read only."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bystander.core.errors import BystanderError, StoreError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LOOPBACK = "127.0.0.1"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def live_app(run: Path, host: str = LOOPBACK) -> Starlette:
    """The page, its script and its data. Requests that name another host are refused: a page elsewhere could otherwise
    read the run through a name that it lets point here."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import Response
    from starlette.routing import Route

    from bystander.results.live import Live
    from bystander.study.store.run_dir import RunDir

    live, templates = Live(RunDir(run)), resources.files("bystander.report") / "templates"

    def file(name: str, kind: str) -> Any:
        def answer(_request: Request) -> Response:
            return Response((templates / name).read_text(encoding="utf-8"), media_type=kind, headers=HEADERS)

        return answer

    def data(_request: Request) -> Response:
        try:
            return Response(json.dumps(_finite(live.look())), media_type="application/json", headers=HEADERS)
        except BystanderError as error:  # a run that has no plan yet gets one
            body = json.dumps({"error": str(error)})
            return Response(body, status_code=503, media_type="application/json", headers=HEADERS)

    hosts = ["*"] if host in ("0.0.0.0", "::") else [host, "localhost", LOOPBACK]
    routes = [
        Route("/", file("live.html", "text/html")),
        Route("/live.js", file("live.js", "text/javascript")),
        Route("/data", data),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])


def _finite(value: object) -> object:
    """The same without numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in cast("dict[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in cast("list[object]", value)]
    return value


def serve(run: Path, host: str, port: int) -> None:
    """Serve the page until Ctrl-C. Raises StoreError where the extra is missing or the port is taken."""
    import socket

    try:
        import uvicorn

        app = live_app(run, host)
    except ImportError as error:
        raise StoreError(
            f"--serve needs {error.name}, which is not installed; pip install 'bystander[serve]'"
        ) from error
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise StoreError(f"cannot listen on {host}:{port}: {error.strerror or error}; give another --port") from error
    from bystander.cli.console import console

    where = f"http://{host}:{listening.getsockname()[1]}/"
    console.print(f"live page of {run}: [bold]{where}[/]  (Ctrl-C ends it; the run goes on)", soft_wrap=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
