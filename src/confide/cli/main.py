# SPDX-License-Identifier: Apache-2.0
"""The `confide` command. Subcommands are imported only when they run, so that `--help` is quick."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

# Name -> (module, attribute, one line of help). The order is the order of `confide --help`.
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "demo", "the whole story on this machine"),
    "doctor": ("doctor", "doctor", "which TEE is here, what is missing, what would be simulated"),
    "serve": ("serve", "serve", "protect a model and serve it on loopback: all in one for a first try"),
    "measure": ("service", "measure", "predict reference values for a service, as a policy"),
    "protect": ("service", "protect", "encrypt a model or data for a service"),
    "run": ("service", "run", "run a service in an enclave; it waits for its keys"),
    "unlock": ("service", "unlock", "verify an enclave, then hand it the owner's keys"),
    "ps": ("service", "ps", "the enclaves of this user"),
    "stop": ("service", "stop", "stop an enclave"),
    "logs": ("service", "logs", "what an enclave lets its host see"),
    "call": ("talk", "call", "send one request to an attested service"),
    "proxy": ("talk", "proxy", "let plain HTTP clients on this machine use an attested service"),
    "verify": ("verify", "verify", "decide whether evidence is genuine and acceptable"),
    "inspect": ("verify", "inspect", "decode evidence and explain it; trusts nothing"),
    "endorse": ("verify", "endorse", "fetch what the vendor says about a piece of evidence"),
    "attest": ("verify", "attest", "ask this machine's TEE for evidence"),
    "identity": ("identity", "identity", "owner identities"),
    "broker": ("broker", "broker", "keep keys in an attested broker and release them by policy"),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"confide.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="confide", message="confide %(version)s")
def cli() -> None:
    """Machine learning on data and models that the machine's owner must not see."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every refusal is an exit code and two lines, never a traceback."""
    try:
        # Outside of standalone mode click returns the code of a command that asks to exit, instead of exiting.
        code = cli.main(
            args=list(arguments) if arguments is not None else None,
            prog_name="confide",
            standalone_mode=False,
        )
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        from confide.cli import output
        from confide.errors import ConfideError

        if isinstance(error, ConfideError):
            output.report(error)
            sys.exit(output.exit_code(error))
        if isinstance(error, OSError):
            output.talk(
                f"{output.paint('error:', 'bad')} {error.strerror or 'input or output failed'}: {error.filename or ''}"
            )
            sys.exit(output.ERROR)
        raise


if __name__ == "__main__":
    main()
