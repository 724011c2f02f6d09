"""How long does an epoch of training take, and how much memory, against a plain implementation?

    python benchmarks/training_speed.py --json benchmarks/results/training_speed.json

The plain implementation is MeCoQ's equations typed down in PyTorch one after the other, as one
would to read them: one quantizer call a view, einsum, boolean masks, all K^2 pairs of codewords in
the regularizer, the memory as a list of batches. Both see the same batches of cached features and
end an epoch at the same loss (checked), so that only the writing differs. Each round runs both,
each in a process of its own, in turns; the ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from common import add_output_options, settings_record, write_result
from mecoq_index._progress import silent
from mecoq_index.data.features import FeatureViews
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.objective.settings import ContrastSettings
from mecoq_index.learn.run import TrainingRun

FEATURE_WIDTH = 1280
CONFIG = TrainConfig(
    objective=ContrastSettings(memory_size=384, memory_start_epoch=0),
    num_codebooks=8,
    num_codewords=256,
    dim=128,
    batch_size=128,
    warmup_epochs=0,
    epochs=1,
)


def make_source(items: int) -> FeatureViews:
    """Random features: what is measured here does not depend on their values."""
    rng = np.random.default_rng(0)
    return FeatureViews(rng.integers(0, 256, (2, items, FEATURE_WIDTH), dtype=np.uint8), scale=42.5)


def plain_epoch(source: FeatureViews, config: TrainConfig) -> float:
    """One epoch of the equations as they stand in the paper; returns the mean loss."""
    M, K, Ds = config.num_codebooks, config.num_codewords, config.dim // config.num_codebooks
    # The same starting point as the trainer's: its initialization, drawn from the same stream.
    torch.manual_seed(config.seed << 20)
    projection = torch.nn.Linear(source.width, config.dim)
    codewords = torch.nn.Parameter(F.normalize(torch.randn(M, K, Ds), dim=-1))
    optimizer = torch.optim.SGD(
        [
            {"params": projection.parameters(), "weight_decay": config.weight_decay},
            {"params": [codewords]},
        ],
        lr=config.lr,
        momentum=config.momentum,
    )
    steps = source.steps(config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, config.final_lr)
    memory: list[torch.Tensor] = []
    own = config.objective
    rho, T, losses = own.positive_prior, own.temperature, []
    for views in source.batches(0, config.batch_size, config.seed):
        n = len(views[0])
        unit = F.normalize(codewords, dim=-1)
        soft, hats = [], []
        for x in views:
            z = F.normalize(projection(x).view(n, M, Ds), dim=-1)
            p = torch.softmax(config.alpha * torch.einsum("nmd,mkd->nmk", z, unit), dim=-1)
            soft.append(p)
            hats.append(torch.einsum("nmk,mkd->nmd", p, unit).reshape(n, -1))
        zhat = F.normalize(torch.cat(hats), dim=-1)
        similarity = torch.exp(zhat @ zhat.T / T)
        itself = torch.eye(2 * n, dtype=torch.bool)
        other = itself.roll(n, dims=1)
        positive = similarity[other]
        negative = similarity[~(itself | other)].view(2 * n, -1)

        def debiased(terms: torch.Tensor, positive: torch.Tensor = positive) -> torch.Tensor:
            estimate = ((terms - rho * positive[:, None]) / (1 - rho)).sum(-1)
            return estimate.clamp(min=terms.shape[1] * np.exp(-1 / T))

        total = debiased(negative)
        if memory:
            stored = torch.cat(memory)[-own.memory_size :]
            decoded = torch.einsum("nmk,mkd->nmd", stored, unit).reshape(len(stored), -1)
            total = total + debiased(torch.exp(zhat @ F.normalize(decoded, dim=-1).T / T))
        contrastive = -torch.log(positive / (positive + total)).mean()
        pairs = torch.einsum("mid,mjd->mij", unit, unit)
        loss = contrastive + own.regularizer_weight * pairs.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            codewords.copy_(F.normalize(codewords, dim=-1))
        memory = [*memory, torch.cat(soft).detach()][-3:]
        losses.append(loss.item())
    return float(np.mean(losses))


def our_epoch(source: FeatureViews, config: TrainConfig) -> float:
    """One epoch of the package's trainer; returns the mean loss."""
    run = TrainingRun(source, config, None, None, "cpu")
    run.prepare()
    return float(run.train_epoch(silent)["loss"])


EPOCHS = {"mecoq_index": our_epoch, "plain": plain_epoch}


def run_one(name: str, items: int, threads: int) -> dict[str, float]:
    """Time one epoch in this process; peak memory is that above the data and the libraries."""
    torch.set_num_threads(threads)
    source = make_source(items)
    EPOCHS[name](make_source(4 * CONFIG.batch_size), CONFIG)  # warm-up
    started = time.perf_counter()
    loss = EPOCHS[name](source, CONFIG)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {"seconds": seconds, "peak_mib": peak, "loss": loss}


def measure(items: int, rounds: int, threads: int) -> dict[str, object]:
    """Both implementations in turns, each in a fresh process."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in EPOCHS}
    for _ in range(rounds):
        for name in EPOCHS:
            command = [sys.executable, __file__, "--one", name, "--items", str(items)]
            command += ["--threads", str(threads)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs[name].append(json.loads(out))
    losses = {name: results[0]["loss"] for name, results in runs.items()}
    if abs(losses["mecoq_index"] - losses["plain"]) > 1e-3:
        raise SystemExit(f"the two implementations do not compute the same: {losses}")
    ratios = [
        plain["seconds"] / ours["seconds"]
        for ours, plain in zip(runs["mecoq_index"], runs["plain"], strict=True)
    ]
    rows = [
        {
            "implementation": name,
            "seconds_per_epoch": statistics.median(r["seconds"] for r in results),
            "seconds_per_epoch_min": min(r["seconds"] for r in results),
            "peak_mib": statistics.median(r["peak_mib"] for r in results),
            "loss": results[0]["loss"],
        }
        for name, results in runs.items()
    ]
    return {
        "items": items,
        "threads": threads,
        "rounds": rounds,
        "config": settings_record(CONFIG),
        "speedup_median": statistics.median(ratios),
        "rows": rows,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=EPOCHS, help=argparse.SUPPRESS)
    add_output_options(parser)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_one(args.one, args.items, args.threads)))
        return
    if args.quick:
        args.items, args.rounds = 6_400, 2
    result = measure(args.items, args.rounds, args.threads)
    for row in result["rows"]:
        print(
            f"{row['implementation']:>12}: {row['seconds_per_epoch']:6.2f} s per epoch of "
            f"{args.items} items, peak {row['peak_mib']:.0f} MiB"
        )
    print(f"{'':>12}  {result['speedup_median']:.2f} times faster than the plain implementation")
    write_result(args.json, result, question=__doc__.splitlines()[0], seed=CONFIG.seed)


if __name__ == "__main__":
    main()
