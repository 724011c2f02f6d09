"""``mecoq-index inspect``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._engine_options import engine_options
from ._index import INDEX, open_index
from ._options import output_options
from ._output import Output

if TYPE_CHECKING:
    from ..codebooks import Codebooks
    from ..index.index import Index


@click.command()
@click.argument("path", type=INDEX)
@engine_options("open")
@output_options
def inspect(path: str, options: dict[str, Any], output: Output) -> None:
    """Tell what a codebook file or an index holds, after checking that it is whole.

    \b
    Example:
        mecoq-index inspect c.pt
        mecoq-index inspect photos.mecoq
    """
    import os

    from ..codebooks import Codebooks

    facts: dict[str, Any]
    if os.path.isfile(path) and not path.endswith(".db"):
        facts = {"kind": "codebooks", **_of_codebooks(Codebooks.load(path))}
    else:
        facts = _of_index(open_index(path, options)[0])
    if output.as_json:
        output.print_json(facts)
    else:
        _print(facts, output)


def _of_index(index: Index) -> dict[str, Any]:
    in_engine = "name" in index.columns
    return {
        "kind": "index",
        **index.describe(),
        "names": len(index) if in_engine else len(index.names),
        "columns": sorted({*index.columns} - {"name"}),
        "codebooks": _of_codebooks(index.codebooks),
    }


def _of_codebooks(codebooks: Codebooks) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "M": codebooks.M,
        "K": codebooks.K,
        "Ds": codebooks.Ds,
        "D": codebooks.D,
        "bits": codebooks.bits,
        "features_width": codebooks.P,
        "projection": [list(layer.weight.shape) for layer in codebooks.projection],
        "normalize": codebooks.normalize,
        "fingerprint": codebooks.fingerprint,
    }
    if codebooks.backbone is not None:
        facts["backbone"] = {
            "name": codebooks.backbone.name,
            "trained": codebooks.backbone.state is not None,
            "weights_sha256": codebooks.backbone.weights_sha256,
            "transform": dict(codebooks.backbone.transform),
        }
    if codebooks.statistics is not None:
        facts["trained_on"] = {
            "vectors": codebooks.statistics.count,
            "lengths": list(codebooks.statistics.lengths),
        }
    return facts | {"report": dict(codebooks.report), "provenance": dict(codebooks.provenance)}


def _print(facts: dict[str, Any], output: Output, indent: str = "") -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            output.print_line(f"{indent}{name}:")
            _print(value, output, indent + "  ")
        else:
            output.print_line(f"{indent}{name}: {value}")
