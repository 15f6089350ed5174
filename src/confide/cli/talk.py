# SPDX-License-Identifier: Apache-2.0
"""`confide call` and `confide proxy`: the client's side for people and for programs that speak plain HTTP."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from confide.cli import output, trust
from confide.cli.addresses import host_port
from confide.errors import ChannelError, ConfigurationError

if TYPE_CHECKING:
    from confide.channel.client_session import Exchange

_MAX_INPUT = 1 << 30


@click.command()
@click.argument("url")
@click.argument("path", default="/")
@trust.trust_options
@click.option(
    "--input",
    "input_path",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="The body of the request; - for stdin.",
)
@click.option("--method", help="POST where there is an input, else GET.")
@click.option("--content-type", default="application/json", show_default=True)
@click.option(
    "--receipt",
    "receipt_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Ask for a signed receipt and keep it here.",
)
def call(
    url: str,
    path: str,
    *,
    trusted: trust.Trusted,
    input_path: Path | None,
    method: str | None,
    content_type: str,
    receipt_path: Path | None,
) -> None:
    """Attest the service at URL, then send one request to PATH; the answer goes to stdout.

    Nothing is sent before the evidence has been verified, and nothing in the clear.
    """
    from confide.channel.client import Client
    from confide.channel.shell import EXTENSION

    verifier = trusted.verifier()
    body = None
    if input_path is not None:
        body = sys.stdin.buffer.read(_MAX_INPUT) if str(input_path) == "-" else input_path.read_bytes()
    with Client(url, verifier, receipts=receipt_path is not None) as client:
        if client.attestation.simulated:
            output.talk(output.paint(trust.SIMULATED_NOTICE, "warn"))
        output.talk(f"attested: {trust.describe_tee(client.attestation)}")
        response = client.request(
            method or ("GET" if body is None else "POST"),
            path,
            content=body,
            headers={"content-type": content_type} if body is not None else {},
        )
        if receipt_path is not None:
            exchange = response.extensions[EXTENSION]
            receipt_path.write_text(json.dumps(_receipt(exchange), indent=2) + "\n")
            output.talk(
                f"receipt: {receipt_path}, verified; show it together with the request, the answer and the evidence"
            )
    sys.stdout.buffer.write(response.content)
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
    if response.status_code >= 400:
        raise ChannelError("status", f"the service answered with status {response.status_code}")


def _receipt(exchange: Exchange) -> dict[str, object]:
    """What `confide.channel.receipt.verify_receipt` takes beside the two bodies, and what the receipt says, in hex."""
    receipt, evidence = exchange.receipt, exchange.attestation.evidence
    if receipt is None or evidence.key_material is None:
        raise ChannelError("receipt", "there is no receipt")
    return {
        "signed": receipt.signed.hex(),
        "key_material": evidence.key_material.hex(),
        "secret": exchange.receipt_secret.hex(),
        "request_head": exchange.request_head.hex(),
        "response_head": exchange.response_head.hex(),
        "says": {
            "kid": receipt.kid.hex(),
            "number": receipt.seq,
            "status": receipt.status,
            "content": {name: digest.hex() for name, digest in receipt.content.items()},
            "time (claimed)": receipt.time,
        },
    }


@click.command()
@click.argument("url")
@trust.trust_options
@click.option("--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT")
def proxy(
    url: str,
    *,
    trusted: trust.Trusted,
    listen: str,
) -> None:
    """Attest the service at URL, then let plain HTTP clients on this machine use it through this proxy.

    The proxy sees plaintext, so it runs on the client's machine and listens on loopback only.
    """
    import ipaddress
    import socket

    import uvicorn

    from confide.channel.async_transport import AsyncAttestedTransport
    from confide.channel.proxy import Proxy

    host, port = host_port(listen)
    if not ipaddress.ip_address(host).is_loopback:
        raise ConfigurationError(
            "address", "the proxy listens on loopback only: what it carries is plaintext"
        )
    verifier = trusted.verifier()
    application = Proxy(AsyncAttestedTransport(url, verifier))
    listener = socket.create_server((host, port))
    output.talk(f"proxy for {url} on http://{host}:{listener.getsockname()[1]}")
    if trusted.allow_simulated:
        output.talk(output.paint(trust.SIMULATED_NOTICE, "warn"))
    config = uvicorn.Config(
        application, log_level="error", access_log=False, lifespan="on", server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])
