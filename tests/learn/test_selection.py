import json

import numpy as np
import pytest
from clusters import clustered_views

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.features import FeatureViews
from mecoq_index.errors import InvalidInputError
from mecoq_index.learn.checkpoint import RunPaths
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.objective.settings import ContrastSettings
from mecoq_index.learn.run import TrainingRun
from mecoq_index.learn.selection import EarlyStopping, HeldOut, view_agreement
from mecoq_index.learn.trainer import fit

CONFIG = TrainConfig(
    objective=ContrastSettings(memory_size=0), num_codebooks=2, num_codewords=8, dim=8, epochs=12,
    batch_size=16, lr=0.05, held_out=30, patience=2,
)  # fmt: skip


def books(seed=0):
    codewords = np.random.default_rng(seed).standard_normal((4, 16, 3))
    return Codebooks(codewords / np.linalg.norm(codewords, axis=-1, keepdims=True))


def noisy(rng, n=40, noise=1.0):
    z = rng.standard_normal((n, 12))
    return [(z + noise * rng.standard_normal(z.shape)).astype(np.float32) for _ in range(2)]


def test_agreement_is_what_views_of_one_item_have_in_common_and_others_have_not():
    rng = np.random.default_rng(0)
    database = rng.standard_normal((600, 12), dtype=np.float32)
    first, second = noisy(rng)
    codebooks = books()
    codes = scoring.encode(database, codebooks)
    found = [
        np.argsort(-scoring.aqs(q, codes, codebooks), axis=1, kind="stable")[:, :12]
        for q in (first, second)
    ]
    own, others = (
        np.mean([len(set(a) & set(b)) / 12 for a, b in zip(found[0], of_second, strict=True)])
        for of_second in (found[1], np.roll(found[1], 1, axis=0))
    )
    want = own - others
    got = view_agreement(codebooks, HeldOut(first, second, database))
    assert got == pytest.approx(want, abs=0.02)  # equal scores may be cut off differently
    assert 0 < got < 1


def test_closer_views_agree_more():
    database = np.random.default_rng(1).standard_normal((600, 12), dtype=np.float32)
    values = [
        view_agreement(books(), HeldOut(*noisy(np.random.default_rng(0), noise=s), database))
        for s in (0.0, 0.5, 3.0)
    ]
    assert 0.9 < values[0] <= 1
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_collapsed_codes_do_not_agree(spread):
    rng = np.random.default_rng(2)
    database, first, second = (
        1 + spread * rng.standard_normal((n, 12), dtype=np.float32) for n in (600, 40, 40)
    )
    assert abs(view_agreement(books(), HeldOut(first, second, database))) < 0.1


def test_held_out_items_are_not_trained_on():
    views = np.zeros((3, 50, 2), np.float32)
    views[..., 0] = np.arange(3)[:, None]
    views[..., 1] = np.arange(50)
    others, held = FeatureViews(views[:2], features=views[2]).hold_out(20, seed=0)
    assert (len(others), others.num_views) == (30, 3)
    seen = {int(i) for a, b in others.batches(0, 8, 0) for x in (a, b) for i in x[:, 1]}
    kept_out = set(held.first[:, 1].astype(int))
    assert len(kept_out) == 20
    assert seen.isdisjoint(kept_out)
    assert set(held.database[:, 1].astype(int)) == set(range(50)) - kept_out
    np.testing.assert_array_equal(held.first[:, 1], held.second[:, 1])
    assert set(held.first[:, 0]) == {0}
    assert set(held.second[:, 0]) == {1}
    assert set(held.database[:, 0]) == {2}


def test_early_stopping_keeps_the_best_weights():
    model = TrainingRun(FeatureViews(clustered_views()[0]), CONFIG, None, None, "cpu").model
    stopping = EarlyStopping(2)
    for epoch, agreement in enumerate((0.1, 0.5, 0.4, 0.45)):
        assert not stopping.is_due
        model.projection[0].bias.data.fill_(float(epoch))
        stopping.judge(agreement, model, epoch + 1)
    assert stopping.is_due
    stopping.restore_best(model)
    assert stopping.best_epoch == 2
    assert float(model.projection[0].bias[0].detach()) == 1


def test_a_run_stops_when_patience_is_over_and_tells_how_good_it_was(tmp_path):
    out = tmp_path / "c.pt"
    trained = fit(FeatureViews(clustered_views(n=200)[0]), CONFIG.replace(epochs=60), out=out)
    records = [json.loads(line) for line in RunPaths(out).log.read_text().splitlines()][1:]
    agreements = [r["view_agreement"] for r in records]
    assert len(agreements) < 60
    assert int(np.argmax(agreements)) == len(agreements) - 1 - 2
    assert trained.provenance["view_agreement"] == pytest.approx(max(agreements))
    assert trained.provenance["epochs_done"] == int(np.argmax(agreements)) + 1


def test_without_patience_the_last_epoch_is_kept_and_judged(tmp_path):
    out = tmp_path / "c.pt"
    trained = fit(FeatureViews(clustered_views()[0]), CONFIG.replace(patience=0), out=out)
    last = json.loads(RunPaths(out).log.read_text().splitlines()[-1])
    assert (last["epoch"], trained.provenance["epochs_done"]) == (11, 12)
    assert trained.provenance["view_agreement"] == pytest.approx(last["view_agreement"])


def test_an_interrupted_run_resumes_to_equal_bits(tmp_path):
    source = FeatureViews(clustered_views(n=200)[0])
    config = CONFIG.replace(epochs=60)
    whole = fit(source, config)
    best = whole.provenance["epochs_done"]

    # After an epoch that was no better, one before patience is over.
    def interrupt(text, done, total):
        if text.startswith(f"epoch {best + 2}/"):
            raise KeyboardInterrupt

    out = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(source, config, out=out, on_progress=interrupt)
    assert fit(source, config, out=out, resume=True).fingerprint == whole.fingerprint


def test_what_cannot_be_judged_is_refused():
    views = clustered_views()[0]
    with pytest.raises(InvalidInputError, match="patience needs held-out items"):
        CONFIG.replace(held_out=0)
    with pytest.raises(InvalidInputError, match="must leave at least 2 of 90 items"):
        fit(FeatureViews(views), CONFIG.replace(held_out=89))
    with pytest.raises(InvalidInputError, match="judged by two views of each, but there is one"):
        fit(FeatureViews(views[:1]), CONFIG.replace(view_dropout=0.2))

    class Bare:
        width = 12

        def __len__(self):
            return 90

    with pytest.raises(InvalidInputError, match=r"held_out works on features .*, not on Bare"):
        fit(Bare(), CONFIG)
