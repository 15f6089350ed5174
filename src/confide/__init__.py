# SPDX-License-Identifier: Apache-2.0
"""Machine learning on data and models that the machine's owner must not see.

Run: `Enclave`, `Function`, `Application`, `ModelService`, `KeyBroker`. Talk: `Verifier`, `AppraisalPolicy`, `Evidence`,
`Client`, `AsyncClient`. Keep: `protect`, `Vault`. Fail: `ConfideError`. Each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confide.attestation.evidence import Evidence
    from confide.attestation.policy import AppraisalPolicy
    from confide.attestation.verifier import Verifier
    from confide.broker.service import KeyBroker
    from confide.channel.client import AsyncClient, Client
    from confide.enclave.application import Application
    from confide.enclave.function import Function
    from confide.errors import ConfideError
    from confide.host.enclave import Enclave
    from confide.sealing.vault import Vault
    from confide.serving.model_service import ModelService
    from confide.serving.protecting import protect

__all__ = [
    "Application",
    "AppraisalPolicy",
    "AsyncClient",
    "Client",
    "ConfideError",
    "Enclave",
    "Evidence",
    "Function",
    "KeyBroker",
    "ModelService",
    "Vault",
    "Verifier",
    "protect",
]

_PLACES = {
    "Application": "enclave.application:Application",
    "AppraisalPolicy": "attestation.policy:AppraisalPolicy",
    "AsyncClient": "channel.client:AsyncClient",
    "Client": "channel.client:Client",
    "ConfideError": "errors:ConfideError",
    "Enclave": "host.enclave:Enclave",
    "Evidence": "attestation.evidence:Evidence",
    "Function": "enclave.function:Function",
    "KeyBroker": "broker.service:KeyBroker",
    "ModelService": "serving.model_service:ModelService",
    "Vault": "sealing.vault:Vault",
    "Verifier": "attestation.verifier:Verifier",
    "protect": "serving.protecting:protect",
}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'confide' has no attribute {name!r}")
    module, _, attribute = place.partition(":")
    value = getattr(importlib.import_module(f"confide.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
