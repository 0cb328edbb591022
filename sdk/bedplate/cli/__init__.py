"""The command line: ``bedplate``.

Results go to standard output (with ``--json``: JSON and nothing else), everything said to people to standard
error. Exit codes: 0 done; 1 failed; 2 wrong usage or malformed request; 3 not found; 4 not allowed; 5
conflict with the present state; 6 the platform cannot be reached; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from bedplate.cli import experts, foundations, jobs, organisation, plugins, records, shards, spaces, status
from bedplate.cli.options import Session
from bedplate.cli.output import report, say
from bedplate.errors import (
    BedplateError,
    Conflict,
    Forbidden,
    InvalidRequest,
    JobFailed,
    NotFound,
    Unauthenticated,
    Unavailable,
)

_EXIT_CODES: Sequence[tuple[type[BedplateError], int]] = (
    (JobFailed, 1),
    (InvalidRequest, 2),
    (NotFound, 3),
    (Unauthenticated, 4),
    (Forbidden, 4),
    (Conflict, 5),
    (Unavailable, 6),
)
_EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not allowed, 5 conflict, 6 unreachable. "
    "Example: bedplate status"
)


def create_app() -> typer.Typer:
    """The whole command line, with the commands other packages announce."""
    app = typer.Typer(
        name="bedplate",
        help="Foundation models and the experts bolted on them.",
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        context: typer.Context,
        url: Annotated[
            str | None,
            typer.Option(help="The platform. Default: $BEDPLATE_URL, else what `bedplate up` wrote."),
        ] = None,
        token: Annotated[str | None, typer.Option(help="Default: $BEDPLATE_TOKEN, else likewise.")] = None,
    ) -> None:
        session = context.obj if isinstance(context.obj, Session) else Session()
        context.obj = Session(url, token, session.connect)

    for noun in (status, organisation, foundations, experts, spaces, shards, records, jobs, plugins):
        noun.add(app)
    return app


def exit_code(error: BedplateError) -> int:
    """The process's exit code for an error; see the module's docstring."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


def run(arguments: Sequence[str], session: Session | None = None) -> int:
    """Run one command and return its exit code; errors are reported on standard error."""
    try:
        create_app()(args=list(arguments), obj=session or Session(), prog_name="bedplate")
    except BedplateError as error:
        report(error, as_json="--json" in arguments)
        return exit_code(error)
    except OSError as error:
        say(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.")
        return 1
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0


def main() -> None:
    """The entry point ``bedplate``."""
    sys.exit(run(sys.argv[1:]))
