import json

import pytest

from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.objective.settings import (
    ContrastSettings,
    DistillationSettings,
    SignsSettings,
)
from mecoq_index.learn.presets import PRESETS, preset, recommended


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"temperature": 0.0}, r"temperature must be at least 0\.03, got 0\.0"),
        ({"temperature": float("nan")}, "temperature must be finite, got nan"),
        ({"alpha": 0}, "alpha must be above 0, got 0"),
        ({"positive_prior": 1.0}, r"positive_prior must lie in \[0, 1\), got 1\.0"),
        ({"num_codewords": 257}, "num_codewords must be at most 256 .* got 257"),
        ({"num_codewords": 1}, "num_codewords must be at least 2, got 1"),
        ({"dim": 100}, "dim must be a multiple of num_codebooks=8, got 100"),
        ({"epochs": 2.5}, r"epochs must be int, got 2\.5"),
        ({"epochs": True}, "epochs must be int, got True"),
        ({"lr": "fast"}, "lr must be float, got 'fast'"),
        ({"loss": "papr"}, r"loss must be one of .*, got 'papr'"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"epochs": 1, "warmup_epochs": 2}, "warmup_epochs must be at most epochs=1, got 2"),
        ({"neighbor_share": 1.1}, r"neighbor_share must lie in \[0, 1\], got 1\.1"),
        ({"neighbors": -1}, "neighbors must be at least 0, got -1"),
        ({"codebooks": "signs"}, "one bit a coordinate: num_codewords must be 2 .* got 256, 8 and"),
        ({"lr": 1e-6}, "warmup_lr must be at most lr=1e-06, got 1e-05"),
        ({"temprature": 0.2}, "unknown setting 'temprature'; did you mean 'temperature'"),
    ],
)
def test_bad_settings_say_what_must_hold(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        TrainConfig().replace(**changes)


def test_settings_survive_json(tmp_path):
    config = TrainConfig(num_codebooks=4, num_codewords=16, dim=32, lr=1)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(config.to_dict()))
    assert TrainConfig.from_json(path) == config
    assert config.bits == 16


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "empty"),
        ("{", "no JSON file"),
        ("[1]", "hold one JSON object of settings"),
    ],
)
def test_a_bad_settings_file_is_named(tmp_path, text, message):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=rf"settings\.json .*{message}"):
        TrainConfig.from_json(path)


def test_a_typo_in_a_settings_file_names_the_file(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"epoch": 3}')
    with pytest.raises(InvalidInputError, match=r"settings\.json: unknown setting 'epoch'; did"):
        TrainConfig.from_json(path)


def test_there_are_twelve_presets_with_the_bits_in_their_names():
    assert len(PRESETS) == 12
    for name in PRESETS:
        assert preset(name).bits == int(name.rpartition("-")[2])


def test_presets_of_the_two_variants_are_never_mixed():
    for name in PRESETS:
        settings = preset(name).objective, preset(name, loss="official").objective
        paper, official = settings
        assert (paper.loss, paper.codebooks, paper.entropy_weight) == ("paper", "learned", 0)
        assert (official.loss, official.codebooks) == ("official", "frozen")
        assert official.entropy_weight > 0
        assert paper.temperature == official.temperature


def test_a_preset_has_the_released_values():
    got = preset("nuswide-16", loss="official")
    assert (got.dim, got.weight_decay, got.trainable_layers) == (64, 1e-2, 0)
    own = got.objective
    assert (own.temperature, own.entropy_weight) == (0.2, 1.0)
    assert (own.positive_prior, own.memory_start_epoch) == (0.15, 10)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(InvalidInputError, match=r"unknown preset 'cifar'; choose one of \['flickr"):
        preset("cifar")


def as_release_0_4_wrote_it(**changes):
    """All settings side by side, under the names that release 0.4 had."""
    return {
        "num_codebooks": 8, "num_codewords": 256, "dim": 128, "alpha": 10.0, "projection": "linear",
        "hidden_dim": 512, "codebooks": "learned", "loss": "paper", "temperature": 0.4,
        "positive_prior": 0.1, "regularizer_weight": 0.5, "entropy_weight": 0.0, "memory_size": 384,
        "memory_start_epoch": 3, "neighbours": 0, "neighbour_share": 0.5, "held_out": 0,
        "patience": 0, "epochs": 50, "batch_size": 128, "optimizer": "sgd", "lr": 0.01,
        "codebook_lr_scale": 1.0, "backbone_lr_scale": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
        "warmup_epochs": 1, "warmup_lr": 1e-5, "final_lr": 1e-5, "max_grad_norm": 0.0,
        "trainable_layers": 0, "view_dropout": 0.0, "precision": "auto", "seed": 0, **changes,
    }  # fmt: skip


OLD = {
    "contrast": (
        as_release_0_4_wrote_it(neighbours=3, neighbour_share=0.25, temperature=0.3),
        TrainConfig(
            objective=ContrastSettings(neighbors=3, neighbor_share=0.25, temperature=0.3),
        ),
    ),
    "official": (
        as_release_0_4_wrote_it(loss="official", codebooks="frozen", entropy_weight=0.2),
        TrainConfig(
            objective=ContrastSettings(loss="official", codebooks="frozen", entropy_weight=0.2)
        ),
    ),
    "distillation": (
        as_release_0_4_wrote_it(
            loss="distillation", memory_size=0, regularizer_weight=0.0, projection="mlp"
        ),
        TrainConfig(objective=DistillationSettings(), projection="mlp"),
    ),
    "signs": (
        as_release_0_4_wrote_it(
            codebooks="signs", num_codebooks=32, num_codewords=2, dim=32, neighbours=5
        ),
        TrainConfig(
            objective=SignsSettings(neighbors=5), num_codebooks=32, num_codewords=2, dim=32
        ),
    ),
}


@pytest.mark.parametrize("kind", OLD)
def test_settings_of_release_0_4_are_read(kind, tmp_path):
    written, wanted = OLD[kind]
    assert TrainConfig.from_dict(written) == wanted
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(written))
    assert TrainConfig.from_json(path) == wanted


@pytest.mark.parametrize("kind", OLD)
def test_settings_survive_their_dictionary(kind):
    config = OLD[kind][1]
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["objective"]["name"] == config.objective.name
    assert TrainConfig.from_dict(plain) == config
    assert TrainConfig().replace(**plain) == config


@pytest.mark.parametrize("kind", ["contrast", "official", "signs"])
def test_settings_of_an_objective_are_taken_by_their_own_and_old_names(kind):
    config = OLD[kind][1]
    nested = config.replace(
        objective={**config.to_dict()["objective"], "neighbors": 7, "temperature": 0.5}
    )
    assert nested == config.replace(neighbors=7, temperature=0.5)
    assert nested == config.replace(neighbours=7, temperature=0.5)
    assert type(nested.objective) is type(config.objective)
    assert nested.objective.memory_size == config.objective.memory_size


def test_an_objective_chosen_by_name_keeps_the_values_that_both_have():
    config = TrainConfig(num_codewords=2, num_codebooks=16, dim=16).replace(temperature=0.2)
    signs = config.replace(objective="signs")
    assert signs.objective == SignsSettings(temperature=0.2)
    assert signs.replace(objective="contrast") == config
    assert TrainConfig().replace(objective="distillation").objective == DistillationSettings()


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"objective": "contrst"}, r"objective must be one of \['contrast', .*\], got 'contrst'"),
        ({"objective": 3}, "objective must be a name or settings of one, got int"),
        ({"objective": SignsSettings}, "objective must be a name or settings of one, got type"),
        ({"objective": {"name": "signal"}}, "objective must be one of .*, got 'signal'"),
        ({"objective": {"temprature": 1.0}}, "unknown setting 'temprature'; did you mean 'temp"),
        ({"objective": {"temperature": 0}}, r"temperature must be at least 0\.03, got 0"),
        ({"seed": 2**43}, "seed must be at most 8796093022207, got 8796093022208"),
    ],
)
def test_a_bad_objective_says_what_must_hold(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        TrainConfig().replace(**changes)


def test_every_message_on_a_settings_file_names_it(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"lr": "fast"}')
    with pytest.raises(InvalidInputError, match=r"settings\.json: lr must be float, got 'fast'"):
        TrainConfig.from_json(path)


@pytest.mark.parametrize(
    "asked,message",
    [
        ({"kind": "texts"}, r"kind must be one of \['images', 'vectors', 'views'\], got 'texts'"),
        ({"objective": "sign"}, r"objective must be one of \['contrast', .*\], got 'sign'"),
        ({"kind": "images", "objective": "signs"}, "takes features, but the source holds images"),
        ({"objective": "signs", "codewords": 16}, "no codewords to choose, got codewords=16"),
        ({"bits": 0}, "bits must be an integer of at least 1, got 0"),
        ({"bits": True}, "bits must be an integer of at least 1, got True"),
        ({"bits": 3}, r"bits must be a multiple of 4, .* got 3\. Use 4"),
        ({"codewords": 512}, "codewords must be 2, 4, 8, .* or 256, got 512"),
    ],
)
def test_what_cannot_be_recommended_is_refused(asked, message):
    with pytest.raises(InvalidInputError, match=message):
        recommended(**{"kind": "vectors", **asked})


@pytest.mark.parametrize("bits", [8, 64])
def test_recommended_settings_have_the_bits_and_codewords_asked_for(bits):
    for kind, objective, usual in (
        ("images", "contrast", 256), ("views", "contrast", 16), ("vectors", "contrast", 16),
        ("vectors", "distillation", 256), ("views", "signs", 2), ("vectors", "signs", 2),
    ):  # fmt: skip
        got = recommended(kind, bits, objective=objective)
        assert (got.bits, got.num_codewords, got.objective.name) == (bits, usual, objective)
