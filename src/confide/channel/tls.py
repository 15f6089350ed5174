# SPDX-License-Identifier: Apache-2.0
"""The TLS around the outer connections. Nothing rests on it: what is confidential is inside the envelope."""

from __future__ import annotations

import functools
import ssl

import httpx2

__all__ = ["context_for"]


def context_for(url: str) -> ssl.SSLContext:
    """The context for outer connections to ``url``, shared by all: reading the root certificates takes tens of ms.

    An ``http`` address gets a context without any root, so that it could connect to nobody if it were ever used.
    """
    return _public() if url.lower().startswith("https:") else _none()


@functools.cache
def _public() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


@functools.cache
def _none() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
