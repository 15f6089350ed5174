# SPDX-License-Identifier: Apache-2.0
"""What runs in a confined worker: waits for keys, builds the service, opens the attested channel, serves, drains.

States, told to the host: ``waiting`` while a released secret is missing (the release routes alone answer), ``running``,
``draining`` once the host asks or its end of the control socket is gone, ``stopped``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import threading
import time
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NoReturn

from confide.enclave import registry
from confide.enclave.context import Built, Context
from confide.enclave.control import DEVICE, EGRESS, LISTEN, Drain, Failed, LogLine, StateChanged
from confide.enclave.egress import Egress
from confide.enclave.front import Front, Guard, lifespan
from confide.enclave.front import server as front_server
from confide.errors import BrokerError, ConfideError, EnclaveError

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.attestation.attester import Attester
    from confide.attestation.key_material import ServiceIdentity
    from confide.channel.gateway import Gateway
    from confide.channel.instance import Instance
    from confide.crypto.secret import Secret
    from confide.enclave.confinement.levels import Confinement
    from confide.enclave.control import Connection, Start
    from confide.enclave.manifest import Manifest
    from confide.keys.receiver import Released
    from confide.simulator.client import SimulatedDevice

__all__ = ["Runtime", "wall_clock"]

_GRACE: Final = 30


def wall_clock() -> datetime:
    """The host's claim of the time; no decision inside rests on it."""
    return datetime.fromtimestamp(time.time(), UTC)


class Runtime:
    """One enclave's life, from confinement to its end."""

    def __init__(
        self, *, start: Start, manifest: Manifest, confinement: Confinement, connection: Connection
    ) -> None:
        self._start = start
        self._manifest = manifest
        self._service = manifest.service
        self._confinement = confinement
        self._connection = connection
        self._sending = threading.Lock()
        self._secrets: dict[str, Secret] = {}
        self._leases: dict[str, float] = {}
        self._instance: Instance | None = None
        self._grace = _GRACE
        self._failure: ConfideError | None = None
        self._lost: ConfideError | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._egress = Egress(socket.socket(fileno=EGRESS), manifest.service.egress)

    def run(self) -> NoReturn:
        """Serve until told to end, tell the host how it ended, and end this process."""
        device = _simulated_device()
        device.claim_level(int(self._confinement.level))
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._main(device))
        raise SystemExit(1)  # Not reached: `_main` ends the process.

    async def _main(self, device: Attester) -> None:
        try:
            await self._serve(device)
        except ConfideError as error:
            self._failure = error
        except BaseException as error:  # noqa: BLE001 - an end that nobody asked for is not a clean stop
            self._failure = EnclaveError("crashed", f"the worker ended with {type(error).__name__}")
        finally:
            self._forget()
            failure = self._failure
            self._say(
                StateChanged("stopped")
                if failure is None
                else Failed(failure.code, failure.message, failure.hint)
            )
            # A thread of the service that never ends must not keep the process; there is nothing left to be finished.
            os._exit(0 if failure is None else 1)

    async def _serve(self, device: Attester) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, stopping.set)
        threading.Thread(
            target=self._listen_to_host, args=(loop, stopping), daemon=True, name="confide-control"
        ).start()
        front = Front()
        server = front_server(front, self._service.limits.open_files)
        serving = asyncio.create_task(server.serve(sockets=[socket.socket(fileno=LISTEN)]))
        asked = asyncio.create_task(stopping.wait())
        living = asyncio.create_task(self._live(device, front))
        watching = asyncio.create_task(self._watch_leases())
        await asyncio.wait({serving, asked, living, watching}, return_when=asyncio.FIRST_COMPLETED)
        if self._failure is None:
            self._say(StateChanged("draining"))
            front.drain()
        asked.cancel()
        watching.cancel()
        server.config.timeout_graceful_shutdown = self._grace if self._failure is None else 0
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(serving, self._grace + 1)
        living.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await living

    async def _live(self, device: Attester, front: Front) -> None:
        """Wait for keys, build, open the channel; then live until cancelled."""
        try:
            # Libraries load while the keys are waited for, and what cannot be imported fails before anybody unlocks.
            module = registry.builder_name(self._service.kind).partition(":")[0]
            await asyncio.gather(
                self._receive_secrets(device, front), asyncio.to_thread(importlib.import_module, module)
            )
            context = self._context(device)
            built = await asyncio.to_thread(self._build, context)
            gateway = self._open_channel(device, built)
            async with lifespan(gateway if built.lifespan else None):
                front.gateway = gateway
                self._say(StateChanged("running"))
                await asyncio.Event().wait()
        except ConfideError as error:
            self._failure = error
        except MemoryError:
            self._failure = EnclaveError(
                "out_of_memory",
                "the service does not fit into its memory limit",
                hint="Raise limits.memory in the service and measure it again.",
            )
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - what it says may hold a value; its kind does not
            self._failure = EnclaveError(
                "crashed",
                f"the service could not be built: {type(error).__name__}",
                hint="Set debug = true in the service (which changes its measurement) to see the traceback.",
            )
            if self._service.debug:
                traceback.print_exc()
        finally:
            front.gateway = None
            if self._instance is not None:
                self._instance.close()

    # Keys

    async def _receive_secrets(self, device: Attester, front: Front) -> None:
        pins = {pin.name: pin.owner_public for pin in (*self._service.models, *self._service.secrets)}
        if not pins:
            return
        self._say(StateChanged("waiting"))
        if self._service.broker is not None:
            from confide.enclave.broker_keys import BrokerKeys

            keys = BrokerKeys(
                service=self._service,
                identity=self._identity(),
                manifest=self._start.manifest,
                device=device,
                egress=self._egress,
                on_lost=self._lose,
            )
            self._secrets.update(await keys.acquire())
            self._renewing = asyncio.create_task(keys.run())
            return
        from confide.enclave.unlocking import Unlocking

        unlocking = Unlocking(
            attester=device,
            service=self._identity(),
            manifest=self._start.manifest,
            pins=pins,
            on_released=self._accept,
            monotonic=time.monotonic,
            wall_clock=wall_clock,
        )
        front.routes = unlocking.routes()
        await unlocking.wait()

    def _identity(self) -> ServiceIdentity:
        from confide.attestation.key_material import ServiceIdentity

        return ServiceIdentity(
            kind=self._service.kind,
            manifest=self._manifest.digest,
            id=self._service.id,
            instance=os.urandom(16),
        )

    async def _lose(self, error: ConfideError) -> None:
        self._lost = error

    def _accept(self, released: Released) -> None:
        """Keep what an owner released; a renewal replaces, and the replaced secret is erased."""
        # All of it is looked at before any of it is kept: a refused answer must not have lengthened a lease.
        for name, secret in released.secrets.items():
            if self._secrets.get(name.name, secret) != secret:
                raise BrokerError("conflict", "a renewed lease brought another secret under the same name")
        now = time.monotonic()
        for name, secret in released.secrets.items():
            if name.name in self._secrets:
                secret.erase()
            else:
                self._secrets[name.name] = secret
            if released.lease:
                self._leases[name.name] = now + released.lease
            else:
                self._leases.pop(name.name, None)

    async def _watch_leases(self) -> None:
        """Return when a lease is over, also while other secrets are still waited for; what was leased is erased then."""
        while True:
            now = time.monotonic()
            if self._lost is None and min(self._leases.values(), default=now + 1) <= now:
                self._lost = BrokerError(
                    "lease_expired",
                    "a released key was not renewed in time and has been erased",
                    hint="Launch again and unlock, or let the broker renew.",
                )
            if self._lost is not None:
                self._forget()
                self._failure = self._lost
                return
            # A renewal may come at any time, so what is left is looked at again and again.
            await asyncio.sleep(max(0.01, min(min(self._leases.values(), default=now + 1) - now, 1.0)))

    def _forget(self) -> None:
        for secret in self._secrets.values():
            secret.erase()

    # The service

    def _context(self, device: Attester) -> Context:
        return Context(
            service=self._service,
            attester=device,
            secrets=self._secrets,
            data=self._start.data,
            storage=self._start.storage,
            egress=self._egress,
            log=lambda event, fields: self._say(LogLine(event, fields)),
            evidence=self._evidence,
        )

    def _build(self, context: Context) -> Built:
        module, _, attribute = registry.builder_name(self._service.kind).partition(":")
        build = getattr(importlib.import_module(module), attribute)
        built: Built = build(self._service.options, context)
        return built

    def _open_channel(self, device: Attester, built: Built) -> Gateway:
        from confide.channel.gateway import Gateway
        from confide.channel.instance import Instance
        from confide.channel.settings import ChannelSettings

        service = self._service
        self._instance = Instance(
            service,
            self._start.manifest,
            device,
            settings=ChannelSettings(
                at_most_once=service.at_most_once,
                cached=service.evidence == "cached",
                max_body=service.limits.max_body,
                max_session=service.max_session,
            ),
            content=built.content,
            random=os.urandom,
            monotonic=time.monotonic,
            wall_clock=wall_clock,
            receipt_extension=built.receipt_extension,
        )
        return Gateway(Guard(built.app, service.limits.deadline), self._instance, on_error=self._on_error)

    def _on_error(self, error: BaseException) -> None:
        """A request failed inside: the operator learns that, and which of our errors it was; never what it said."""
        code = error.code if isinstance(error, ConfideError) else "enclave.crashed"
        with contextlib.suppress(ConfideError):
            self._say(LogLine("request_failed", {"code": code}))
        if self._service.debug:
            traceback.print_exception(error)

    def _evidence(self, nonce: bytes) -> bytes:
        if self._instance is None:
            raise EnclaveError("bad_state", "the channel is not open yet")
        return self._instance.bundle(nonce)

    # The host

    def _say(self, message: StateChanged | LogLine | Failed) -> None:
        # A host that does not listen any more changes nothing in here; the end of its socket is seen elsewhere.
        with self._sending, contextlib.suppress(EnclaveError):
            self._connection.send(message)

    def _listen_to_host(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
        """Drain when the host says so, says anything that it may not, or is gone."""
        grace = 0
        with contextlib.suppress(ConfideError):
            message = self._connection.receive()
            if isinstance(message, Drain):
                grace = message.seconds
        self._grace = grace
        with contextlib.suppress(RuntimeError):  # The loop has ended already.
            loop.call_soon_threadsafe(stopping.set)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    # uvloop counts only where the manifest lists it: otherwise it cannot be imported.
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _simulated_device() -> SimulatedDevice:
    from confide.simulator.client import SimulatedDevice

    return SimulatedDevice(socket.socket(fileno=DEVICE))
