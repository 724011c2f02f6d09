"""``mecoq-index inspect``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._shared import EXISTING, json_option, print_json

if TYPE_CHECKING:
    from ..codebooks import Codebooks


@click.command()
@click.argument("path", type=EXISTING)
@json_option
def inspect(path: Path, as_json: bool) -> None:
    """Tell what a codebook file or an index folder holds, after checking that it is whole.

    \b
    Example:
        mecoq-index inspect c.pt
        mecoq-index inspect photos.mecoq
    """
    from ..codebooks import Codebooks
    from ..index.bundle import Bundle

    facts: dict[str, Any]
    if path.is_dir():
        bundle = Bundle.open(path)
        facts = {
            "kind": "index",
            **bundle.manifest["description"],
            "metric": bundle.manifest["metric"],
            "names": len(bundle.names),
            "bytes_on_disk": sum(f["bytes"] for f in bundle.manifest["files"].values()),
            "codebooks": _describe(bundle.codebooks),
        }
    else:
        facts = {"kind": "codebooks", **_describe(Codebooks.load(path))}
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _describe(codebooks: Codebooks) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "M": codebooks.M,
        "K": codebooks.K,
        "Ds": codebooks.Ds,
        "D": codebooks.D,
        "bits": codebooks.bits,
        "features_width": codebooks.P,
        "projection": [list(layer.weight.shape) for layer in codebooks.projection],
        "fingerprint": codebooks.fingerprint,
    }
    if codebooks.backbone is not None:
        facts["backbone"] = {
            "name": codebooks.backbone.name,
            "trained": codebooks.backbone.state is not None,
            "weights_sha256": codebooks.backbone.weights_sha256,
            "transform": dict(codebooks.backbone.transform),
        }
    return facts | {"provenance": dict(codebooks.provenance)}


def _print(facts: dict[str, Any], indent: str = "") -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{name}:")
            _print(value, indent + "  ")
        else:
            click.echo(f"{indent}{name}: {value}")
