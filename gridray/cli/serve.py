"""`gridray serve`: put a trained policy behind an endpoint."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gridray.cli.output import print_json
from gridray.cluster.runtime import ray_session
from gridray.errors import GridRayError
from gridray.serving.access import find_key
from gridray.serving.ingress import check_port_is_free, find_haproxy, haproxy_environment
from gridray.serving.served import load_served

if TYPE_CHECKING:
    from ray import serve

APPLICATION = "gridray"


def command(  # one parameter per option
    bundle: Annotated[Path, typer.Argument(help="Folder of the policy bundle.")],
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    api_key_file: Annotated[
        Path | None, typer.Option(help="File (mode 600) with the API key; else GRIDRAY_API_KEY, else a new one.")
    ] = None,
    replicas: Annotated[int, typer.Option(help="Processes that answer.", min=1)] = 1,
    decision_log: Annotated[Path | None, typer.Option(help="Append one JSON line per request to this file.")] = None,
    *,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Answer everyone, without an API key.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Serve a policy over HTTP until Ctrl-C.

    Example: gridray serve demo/bundles/north/federated --port 8000
    """
    settings: dict[str, Any] = {"bundle": str(bundle.absolute()), "replicas": replicas, "require_api_key": not no_auth}
    if decision_log is not None:
        settings["decision_log"] = str(decision_log.absolute())
    if no_auth:
        sys.stderr.write(f"warning: no API key is asked for: everyone who reaches {host}:{port} gets answers\n")
    given_key = None if no_auth else find_key(api_key_file)
    key = None if no_auth else given_key or secrets.token_urlsafe(32)
    served = load_served(bundle)
    check_port_is_free(host, port)
    with ExitStack() as cleanup, suppress(KeyboardInterrupt):
        # What `kill` and service supervisors send ends the server as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        ingress = _choose_ingress(cleanup)
        # Serve reads its settings while it is imported, and Ray's processes inherit them: both come after the choice.
        application = _bind(settings, key)
        cleanup.enter_context(ray_session(num_cpus=max(os.cpu_count() or 1, replicas)))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _run(cleanup, application, host, port)
        _announce(
            {
                "url": f"http://{host}:{port}",
                "ingress": ingress,
                "model": served.model,
                "policy_id": served.policy_id,
            },
            new_key=None if given_key else key,
            as_json=as_json,
        )
        while True:
            signal.pause()


def _choose_ingress(cleanup: ExitStack) -> str:
    """Put HAProxy into the environment if it runs here, and tell plainly where it does not."""
    if "RAY_ADDRESS" in os.environ:
        return "as the cluster was started"
    haproxy = find_haproxy()
    if haproxy is None:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
        sys.stderr.write("warning: HAProxy does not run on this machine: serving through Ray's slower Python proxy\n")
        return "python"
    # HAProxy's sockets lie here, and their paths end at 107 characters: no long TMPDIR.
    folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="gr-serve-", dir="/tmp"))
    os.environ.update(haproxy_environment(Path(folder), haproxy))
    return "haproxy"


def _bind(settings: dict[str, Any], key: str | None) -> serve.Application:
    from gridray.serving.app import ServingConfig, bind  # noqa: PLC0415

    return bind(ServingConfig(**settings), key)


def _run(cleanup: ExitStack, application: serve.Application, host: str, port: int) -> None:
    from ray import serve  # noqa: PLC0415

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    cleanup.callback(_stop, serve)
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
    try:
        serve.run(application, name=APPLICATION)
    except RuntimeError as error:
        raise GridRayError(f"Ray Serve did not start the policy ({error}): see the logs of the replica") from error


def _stop(serve: Any) -> None:  # noqa: ANN401  # the module, which cannot be imported earlier
    """Take the policy down, and Serve too unless the cluster serves something else."""
    # A second Ctrl-C would leave HAProxy and its folder behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    serve.delete(APPLICATION)
    if not serve.status().applications:
        serve.shutdown()


def _announce(info: dict[str, str], *, new_key: str | None, as_json: bool) -> None:
    if as_json:
        print_json(info | ({} if new_key is None else {"api_key": new_key}))
    else:
        lines = [
            f"Serving {info['model']} at {info['url']} (ingress: {info['ingress']}; Ctrl-C stops it)",
            f"Policy {info['policy_id']}",
            f"API documentation: {info['url']}/docs",
        ]
        lines += [] if new_key is None else [f"New API key, shown only now: {new_key}"]
        sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
