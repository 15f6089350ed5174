# SPDX-License-Identifier: Apache-2.0
"""The clients of a key broker: an owner's (put, policy, revoke, list, audit) and an enclave's (fetch).

Both speak through any client with the interface of httpx2. In production that is ``confide.channel.client.Client`` (or
``AsyncClient``), which has verified the broker before the first byte; these classes add no protection of the transport.
What is exchanged is written once, in ``confide.keys.broker_flows``, and driven by both classes.

Specification: docs/spec/broker.md sections 7 and 8.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from confide.keys import broker_flows as flows
from confide.keys import broker_messages as messages
from confide.keys.broker_flows import Audited, BrokerStatus, Work
from confide.keys.broker_messages import Wanted, broker_audience
from confide.ledger import chain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    from confide.crypto.secret import Secret
    from confide.crypto.signing import SigningKey
    from confide.keys.broker_flows import Call
    from confide.keys.lease import Lease
    from confide.keys.receiver import Receiver
    from confide.keys.release import SecretName

__all__ = [
    "AsyncBrokerClient",
    "Audited",
    "BrokerClient",
    "BrokerStatus",
    "Wanted",
    "broker_audience",
]

T = TypeVar("T")


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def content(self) -> bytes: ...


class _SyncHttp(Protocol):
    def request(
        self, method: str, url: str, *, content: bytes | None = ..., headers: dict[str, str] | None = ...
    ) -> Any: ...


class _AsyncHttp(Protocol):
    def request(
        self, method: str, url: str, *, content: bytes | None = ..., headers: dict[str, str] | None = ...
    ) -> Awaitable[Any]: ...


def _answer(response: _Response) -> bytes:
    status, content = response.status_code, bytes(response.content)
    if status != 200:
        raise messages.read_error(status, content)
    return content


# -- the drivers


class BrokerClient:
    """A broker, through a blocking HTTP client whose ``base_url`` is the broker's.

    Every method raises what the transport raises, and the broker's own errors as they are.
    """

    def __init__(
        self,
        http: _SyncHttp,
        *,
        random: Callable[[int], bytes] = os.urandom,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._random = random
        self._monotonic = monotonic

    def status(self) -> BrokerStatus:
        """What the broker says of itself."""
        return self._drive(flows.status())

    def put(self, key: SigningKey, secret: SecretName, value: Secret) -> int:
        """Keep a secret under a name and version; gives the length of the ledger that holds the record."""
        return self._drive(flows.put(key, secret, value, self._random))

    def set_policy(
        self,
        key: SigningKey,
        *,
        tenant: str,
        secrets: Iterable[SecretName],
        appraisal: bytes,
        lease_seconds: int = 3600,
        max_instances: int = 0,
    ) -> int:
        """Say which secrets a tenant's enclave may have, and by which policy (exact TOML) it must show itself."""
        return self._drive(
            flows.set_policy(
                key,
                tenant=tenant,
                secrets=secrets,
                appraisal=appraisal,
                lease_seconds=lease_seconds,
                max_instances=max_instances,
            )
        )

    def revoke(
        self,
        key: SigningKey,
        *,
        secret: SecretName | None = None,
        tenant: str | None = None,
        measurement: bytes | None = None,
        manifest: bytes | None = None,
    ) -> int:
        """Take one thing back. When this returns, the broker releases nothing against it any more."""
        return self._drive(flows.revoke(key, secret, tenant, measurement, manifest))

    def list(self, key: SigningKey) -> dict[str, Any]:
        """What the owner has here: ``secrets``, ``policies``, ``revocations``, ``serials``; no secret's bytes."""
        return self._drive(flows.overview(key))

    def audit(self, key: SigningKey, *, head: bytes = chain.GENESIS, length: int = 0) -> Audited:
        """The owner's records, with the whole chain checked from ``head`` and ``length`` on.

        Raises ``broker.rollback`` if the ledger is shorter than it was, ``broker.integrity`` if it is another one.
        """
        return self._drive(flows.audit(key, head, length))

    def fetch(
        self,
        receiver: Receiver,
        *,
        owner: bytes,
        tenant: str,
        names: Iterable[str | SecretName | Wanted],
    ) -> Lease:
        """Inside an enclave: attest to the broker and get secrets of one owner under a lease."""
        began = self._monotonic()
        return self._drive(
            flows.fetch(receiver, owner=owner, tenant=tenant, wanted=flows.read_names(names), began=began)
        )

    def _drive(self, flow: Generator[Call | Work, Any, T]) -> T:
        answer: bytes | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, Work):
                answer = step.run()
            else:
                answer = _answer(
                    self._http.request(step.method, step.path, content=step.body, headers=_headers(step))
                )


class AsyncBrokerClient:
    """The same broker, through an asynchronous HTTP client; the quoting device is asked in a thread."""

    def __init__(
        self,
        http: _AsyncHttp,
        *,
        random: Callable[[int], bytes] = os.urandom,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._random = random
        self._monotonic = monotonic

    async def status(self) -> BrokerStatus:
        """What the broker says of itself."""
        return await self._drive(flows.status())

    async def put(self, key: SigningKey, secret: SecretName, value: Secret) -> int:
        """See ``BrokerClient.put``."""
        return await self._drive(flows.put(key, secret, value, self._random))

    async def set_policy(
        self,
        key: SigningKey,
        *,
        tenant: str,
        secrets: Iterable[SecretName],
        appraisal: bytes,
        lease_seconds: int = 3600,
        max_instances: int = 0,
    ) -> int:
        """See ``BrokerClient.set_policy``."""
        return await self._drive(
            flows.set_policy(
                key,
                tenant=tenant,
                secrets=secrets,
                appraisal=appraisal,
                lease_seconds=lease_seconds,
                max_instances=max_instances,
            )
        )

    async def revoke(
        self,
        key: SigningKey,
        *,
        secret: SecretName | None = None,
        tenant: str | None = None,
        measurement: bytes | None = None,
        manifest: bytes | None = None,
    ) -> int:
        """See ``BrokerClient.revoke``."""
        return await self._drive(flows.revoke(key, secret, tenant, measurement, manifest))

    async def list(self, key: SigningKey) -> dict[str, Any]:
        """See ``BrokerClient.list``."""
        return await self._drive(flows.overview(key))

    async def audit(self, key: SigningKey, *, head: bytes = chain.GENESIS, length: int = 0) -> Audited:
        """See ``BrokerClient.audit``."""
        return await self._drive(flows.audit(key, head, length))

    async def fetch(
        self,
        receiver: Receiver,
        *,
        owner: bytes,
        tenant: str,
        names: Iterable[str | SecretName | Wanted],
    ) -> Lease:
        """See ``BrokerClient.fetch``."""
        began = self._monotonic()
        return await self._drive(
            flows.fetch(receiver, owner=owner, tenant=tenant, wanted=flows.read_names(names), began=began)
        )

    async def _drive(self, flow: Generator[Call | Work, Any, T]) -> T:
        answer: bytes | None = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, Work):
                answer = await asyncio.to_thread(step.run)
            else:
                response = await self._http.request(
                    step.method, step.path, content=step.body, headers=_headers(step)
                )
                answer = _answer(response)


def _headers(call: Call) -> dict[str, str]:
    return {"content-type": messages.MEDIA_TYPE} if call.body is not None else {}
