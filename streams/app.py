"""The worker as a Faust app: Faust gives it its life cycle, signals and web server; Kafka is the pipeline's own."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING, Any

import faust
import mode
import uvloop
from faust.app.base import BootStrategy
from faust.web import View

from streams.api.what_if import WorkerPage
from streams.core.errors import NearstreamError, UsageError, WorkerUnavailable
from streams.kafka.worker import Worker
from streams.metrics import Metrics
from streams.wiring import build_engine, image_folder, model_folder

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.core.what_if import WhatIf, WhatIfQuestion, WhatIfRefusal

logger = logging.getLogger(__name__)


class _NoFaustKafka(BootStrategy):
    """Faust's own consumer and producer stay off: its exactly-once leaves outputs outside the transaction."""

    enable_kafka = False


class _App(faust.App):
    BootStrategy = _NoFaustKafka


class WorkerService(mode.Service):
    """Runs the worker inside the Faust app. A verdict that must stop it is kept in `failure`, and `halt` is set."""

    logger = logging.getLogger("mode.service")  # its "Starting..." and "Stopping..." are the library's noise

    def __init__(self, settings: Settings, web_port: int) -> None:
        super().__init__()
        self._settings = settings
        self._web_port = web_port
        self.metrics = Metrics()
        self.worker: Worker | None = None
        self.failure: NearstreamError | None = None
        self.halt = asyncio.Event()

    async def on_start(self) -> None:
        """Starts in the background, so that the web server answers while Kafka or the changelog keeps us waiting."""
        self.add_future(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            engine = await loop.run_in_executor(None, build_engine, self._settings)
            self.worker = Worker(
                self._settings,
                engine,
                self.metrics,
                models=model_folder(self._settings),
                images=image_folder(self._settings),
                weights_interval_s=self._settings.weights_interval_s,
            )
            self.worker.reporter.web_url = self._settings.web_url or _own_url(self._settings, self._web_port)
            await self.worker.start()
            await self.worker.failed
        except NearstreamError as error:
            self.failure = error
            self.halt.set()

    async def what_if(self, user_id: str, question: WhatIfQuestion) -> WhatIf | WhatIfRefusal:
        """See `Worker.what_if`. Raises WorkerUnavailable also while the worker is not there yet."""
        if self.worker is None:
            raise WorkerUnavailable("This worker is starting. Ask again once it runs.")
        return await self.worker.what_if(user_id, question)

    async def on_stop(self) -> None:
        """Leaves the group and closes everything in bounded time."""
        if self.worker is not None:
            await self.worker.stop()


def create_app(settings: Settings, web_port: int | None = None) -> tuple[faust.App, WorkerService]:
    """The Faust app with the worker's web pages, and the service that runs beside it; nothing starts yet.

    `web_port` takes the place of the settings' own, which may be 0; Faust knows no port 0.
    """
    web_port = settings.web_port if web_port is None else web_port
    app = _App(
        settings.group,
        broker=f"kafka://{settings.bootstrap.split(',')[0]}",
        store="memory://",
        datadir=str(settings.data_dir / "faust"),
        web_host=settings.web_host,
        web_bind=settings.web_host,
        web_port=web_port,
        topic_disable_leader=True,
        autodiscover=False,
    )
    service = WorkerService(settings, web_port)
    _add_pages(app, service, WorkerPage(settings, service.what_if, time.time))
    return app, service


def run_worker(settings: Settings) -> None:
    """Runs until SIGTERM or Ctrl-C.

    Raises:
        NearstreamError: the verdict that stopped the worker.
    """
    web_port = _usable_port(settings)
    datadir = settings.data_dir / "faust"
    datadir.mkdir(parents=True, exist_ok=True)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    app, service = create_app(settings, web_port)
    host = faust.Worker(app, service, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
    host.spinner = None  # it writes control characters to stdout
    try:
        loop.run_until_complete(_until_halted(host, service))
    finally:
        host.stop_and_shutdown()
    if service.failure is not None:
        logger.error("stopped: %s", service.failure)
        raise service.failure


async def _until_halted(host: faust.Worker, service: WorkerService) -> None:
    """Returns when a signal or a verdict has stopped the host."""
    running = asyncio.ensure_future(host.start())
    halted = asyncio.ensure_future(service.halt.wait())
    await asyncio.wait({running, halted}, return_when=asyncio.FIRST_COMPLETED)
    halted.cancel()
    if not running.done():
        await host.stop()
    await running


def _own_url(settings: Settings, web_port: int) -> str:
    """The address to show: a worker that listens everywhere is reached by its machine's name."""
    host = socket.gethostname() if settings.web_host in {"0.0.0.0", "::"} else settings.web_host
    return f"http://[{host}]:{web_port}" if ":" in host else f"http://{host}:{web_port}"


def _usable_port(settings: Settings) -> int:
    """The settings' port or, for 0, a free one that the system chose. Raises UsageError: it cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.web_host, settings.web_port))
            port: int = probe.getsockname()[1]
        except OSError as error:
            raise UsageError(
                f"The worker's web address {settings.web_host}:{settings.web_port} cannot be used "
                f"({error.strerror}). Choose another with --web-port or NEARSTREAM_WEB_PORT."
            ) from error
    return port


def _add_pages(app: faust.App, service: WorkerService, supposing: WorkerPage) -> None:
    @app.page("/metrics")
    async def metrics(web: Any, request: Any) -> Any:  # noqa: ARG001 - Faust passes both
        return web.bytes(service.metrics.exposition(), content_type="text/plain")

    @app.page("/healthz")
    async def healthz(web: Any, request: Any) -> Any:  # noqa: ARG001
        return web.json({"alive": True})

    @app.page("/readyz")
    async def readyz(web: Any, request: Any) -> Any:  # noqa: ARG001
        worker = service.worker
        ready = worker is not None and worker.ready
        answer = {
            "ready": ready,
            "state": "starting" if worker is None else worker.reporter.state,
            "message": None if worker is None else worker.reporter.message,
        }
        return web.json(answer, status=200 if ready else 503)

    @app.page("/what-if")
    class WhatIfPage(View):
        async def post(self, request: Any) -> Any:
            return await supposing.handle(request)
