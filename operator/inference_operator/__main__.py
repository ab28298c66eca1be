"""The operator's command line.

Enters: arguments and files. Leaves: YAML, an exit code: 0; 1 for a pod that is refused; 2 for a file that cannot
be used. What `render` prints comes out of the rooms that do the same in the cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from inference_config import __version__
from inference_config.names import KEY_FILE, REVISION_FILE

from . import crd, inject, manifests, naming, render
from .defaults import read
from .errors import InvalidObject, OperatorError

MASK = "********"
IN_THE_CLUSTER = "(made in the cluster)"
HEADER = "# Written by `inference-operator crd`. Change operator/inference_operator/crd, not this file.\n"


class UnusableFile(OperatorError):
    """A file cannot be read, or does not hold what it is given for."""


class UnusableOptions(OperatorError):
    """Options that do not go together."""


def main() -> None:
    """The script `inference-operator`."""
    sys.exit(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Does what the arguments say, and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "crd":
            sys.stdout.write(HEADER + _yaml(crd.definition()))
            return 0
        if options.command == "run":
            return _run(options)
        if options.command == "webhook":
            return _webhook(options)
        return _render(options.file, options.pod, options.defaults, namespace_opted_in=options.opted_in)
    except OperatorError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "inference-operator", description="The Kubernetes side of inference-sidecar."
    )
    parser.add_argument("--version", action="version", version=f"inference-operator {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("crd", help="print the CustomResourceDefinition")
    text = "print what would be applied for an InferenceConfig, and the pod that would result; ask no cluster"
    one = commands.add_parser("render", help=text, description=text)
    one.add_argument(
        "-f", "--file", type=Path, required=True, help="InferenceConfigs; other objects are passed over"
    )
    one.add_argument("--pod", type=Path, help="a Pod, or anything with a pod template")
    one.add_argument("--defaults", type=Path, help="chart-wide defaults, in the form of spec.sidecar")
    one.add_argument(
        "--namespace-opted-in", action="store_true", dest="opted_in",
        help=f'as if the namespace had the label {naming.INJECT_LABEL}: "true"',
    )  # fmt: skip
    _add_run(commands)
    _add_webhook(commands)
    return parser


def _add_run(commands: Any) -> None:
    text = (
        "look after InferenceConfigs until SIGTERM: render, roll out, report; keep the webhook's certificates"
    )
    one = commands.add_parser("run", help=text, description=text)
    one.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NS",
        help="look after this one; absent: after all",
    )
    one.add_argument("--defaults", type=Path, help="chart-wide defaults, in the form of spec.sidecar")
    one.add_argument(
        "--own-namespace", metavar="NS", default=os.environ.get("POD_NAMESPACE"), help="absent: POD_NAMESPACE"
    )
    one.add_argument(
        "--certificates-secret", metavar="NAME", help="keep certificates there; absent: keep none"
    )
    one.add_argument("--webhook-service", metavar="NAME", help="the Service that the certificates are for")
    one.add_argument(
        "--webhook-configuration", metavar="NAME", help="fill in caBundle there; absent: nowhere"
    )
    one.add_argument("--health-port", type=int, default=8081, help="/livez, /readyz, /metrics")


def _run(options: argparse.Namespace) -> int:
    from . import rotate, run  # noqa: PLC0415 - kopf and the Kubernetes client are slow to import
    from .handlers import Scope  # noqa: PLC0415

    names = None
    if options.certificates_secret is not None:
        if options.own_namespace is None or options.webhook_service is None:
            raise UnusableOptions("--certificates-secret needs --webhook-service and --own-namespace")
        names = rotate.Names(
            options.own_namespace,
            options.certificates_secret,
            options.webhook_service,
            options.webhook_configuration,
        )
    elif options.webhook_configuration is not None:
        raise UnusableOptions(
            "--webhook-configuration needs --certificates-secret: its authority is filled in"
        )
    scope = Scope(tuple(options.namespace))
    return asyncio.run(run.run(run.Options(scope, options.defaults, options.health_port, names)))


def _add_webhook(commands: Any) -> None:
    text = "serve the webhook that gives pods their sidecar"
    one = commands.add_parser("webhook", help=text, description=text)
    one.add_argument("--host", default="::", help="address to listen on (%(default)s: all)")
    one.add_argument("--port", type=int, default=8443, help="of /inject, with TLS (%(default)s)")
    one.add_argument(
        "--health-port", type=int, default=8081, help="of /livez, /readyz and /metrics (%(default)s)"
    )
    one.add_argument(
        "--own-namespace", default=os.environ.get("POD_NAMESPACE"), help="default: $POD_NAMESPACE"
    )
    one.add_argument("--certificates-secret", help="Secret of --own-namespace with tls.crt and tls.key")
    one.add_argument("--tls-cert", type=Path, help="in place of the Secret, read again when it changes")
    one.add_argument("--tls-key", type=Path, help="the key of --tls-cert")
    one.add_argument("--defaults", type=Path, help="chart-wide defaults, in the form of spec.sidecar")
    one.add_argument(
        "--drain-secs", type=float, default=5.0, help="to go on serving after SIGTERM (%(default)g)"
    )


def _webhook(options: argparse.Namespace) -> int:
    # Here, so that `render` needs neither a server nor a Kubernetes client.
    from .webhook import FromFiles, FromSecret, Settings, run  # noqa: PLC0415

    certificate: FromFiles | FromSecret
    if options.tls_cert and options.tls_key and not options.certificates_secret:
        certificate = FromFiles(options.tls_cert, options.tls_key)
    elif options.certificates_secret and options.own_namespace and not (options.tls_cert or options.tls_key):
        certificate = FromSecret(options.own_namespace, options.certificates_secret)
    else:
        raise UnusableOptions(
            "give --certificates-secret with --own-namespace, or else --tls-cert and --tls-key"
        )
    return run(
        Settings(
            certificate,
            defaults=options.defaults,
            host=options.host,
            port=options.port,
            health_port=options.health_port,
            drain_secs=options.drain_secs,
        )
    )


def _render(file: Path, pod: Path | None, defaults: Path | None, *, namespace_opted_in: bool) -> int:
    configs = [_config(obj, file) for obj in _objects(file) if obj.get("kind") == naming.KIND]
    if not configs:
        raise UnusableFile(f"{file}: no {naming.KIND} in it")
    sidecar = read(defaults) if defaults is not None else crd.Sidecar()
    printed = [_shown_secret(config, file) for config in configs]
    if pod is None:
        sys.stdout.write("---\n".join(map(_yaml, printed)))
        return 0
    given = _pod(pod)
    namespace = given["metadata"].get("namespace") or configs[0].metadata.namespace
    beside = [config for config in configs if config.metadata.namespace == namespace]
    outcome = inject.admit(given, namespace, beside, sidecar, namespace_opted_in=namespace_opted_in)
    if isinstance(outcome, inject.Refused):
        sys.stderr.write(f"refused ({outcome.reason}): {outcome.message}\n")
        return 1
    if isinstance(outcome, inject.Skipped):
        sys.stderr.write(f"left as it is ({outcome.reason}): {outcome.message}\n")
    else:
        sys.stderr.write("".join(f"warning: {warning}\n" for warning in outcome.warnings))
        given = dict(outcome.pod)
    sys.stdout.write("---\n".join(map(_yaml, [*printed, given])))
    return 0


def _config(obj: Mapping[str, Any], file: Path) -> crd.InferenceConfig:
    if unknown := crd.unknown_fields(obj):
        raise UnusableFile("\n".join(f"{file}: {path}: an unknown field" for path in unknown))
    try:
        return crd.parse(obj)
    except InvalidObject as error:
        raise UnusableFile("\n".join(f"{file}: {line}" for line in str(error).splitlines())) from None


def _shown_secret(config: crd.InferenceConfig, file: Path) -> dict[str, Any]:
    """The rendered Secret in readable form, with masks for the key, the values of headers, and what they go into."""
    inference = config.spec.inference
    settings = dict(inference.settings)
    headers = settings.get("inference.extra_headers")
    if isinstance(headers, dict):
        settings["inference.extra_headers"] = dict.fromkeys(headers, MASK)
    key = None if inference.api_key_secret_ref is None else SecretStr(MASK)
    masked = inference.model_copy(update={"settings": settings})
    _rendered(inference, key, file)
    secret = manifests.rendered_secret(config, _rendered(masked, key, file).files)
    shown = {name: base64.b64decode(text).decode() for name, text in secret.pop("data").items()}
    hidden = {KEY_FILE: MASK, REVISION_FILE: IN_THE_CLUSTER, naming.SALT_KEY: IN_THE_CLUSTER}
    owner = secret["metadata"]["ownerReferences"][0]
    owner["uid"] = owner["uid"] or IN_THE_CLUSTER
    return {**secret, "stringData": {name: hidden.get(name, text) for name, text in shown.items()}}


def _rendered(spec: crd.InferenceSpec, key: SecretStr | None, file: Path) -> render.Rendered:
    rendered = render.render(spec, key, bytes(render.SALT_BYTES))
    if isinstance(rendered, render.Invalid):
        raise UnusableFile("\n".join(f"{file}: {line}" for line in rendered.message.splitlines()))
    return rendered


def _pod(file: Path) -> dict[str, Any]:
    """The pod of a file: a Pod as it is, of a workload the one that its template makes."""
    for obj in _objects(file):
        if obj.get("kind") == "Pod":
            return {**obj, "metadata": obj.get("metadata") or {}}
        spec = obj.get("spec") or {}
        template = spec.get("template") or ((spec.get("jobTemplate") or {}).get("spec") or {}).get("template")
        if template:
            owner = obj.get("metadata") or {}
            metadata = {
                **({"namespace": owner["namespace"]} if "namespace" in owner else {}),
                "generateName": f"{owner.get('name', '')}-",
                **(template.get("metadata") or {}),
                "ownerReferences": [
                    {"kind": obj.get("kind"), "name": owner.get("name", ""), "controller": True}
                ],
            }
            return {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": template.get("spec") or {},
            }
    raise UnusableFile(f"{file}: no Pod and no pod template in it")


class _Reader(yaml.SafeLoader):
    """YAML as kubectl reads it: `off` is false, but a date is a text."""


_Reader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Writer(yaml.SafeDumper):
    """Writes no aliases, and texts of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        del data  # whatever it is
        return True


def _text(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Writer.add_representer(str, _text)


def _yaml(obj: Mapping[str, Any]) -> str:
    return yaml.dump(obj, Dumper=_Writer, sort_keys=False, width=120, allow_unicode=True)


def _objects(file: Path) -> list[dict[str, Any]]:
    try:
        found = list(yaml.load_all(file.read_text(encoding="utf-8"), Loader=_Reader))
    except OSError as error:
        raise UnusableFile(f"{file}: {(error.strerror or 'an error').lower()}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UnusableFile(f"{file}: no valid YAML") from None
    return [obj for obj in found if isinstance(obj, dict)]


if __name__ == "__main__":
    main()
