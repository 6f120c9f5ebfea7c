"""What a segmentation network of nnU-Net sees, as features."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import small_nnunet
import torch

from convexadam import (
    Concat,
    ConfigError,
    FileError,
    Image,
    InputError,
    MindSSC,
    MissingExtraError,
    Refinement,
    RegistrationConfig,
    read_image,
    register,
    write_image,
)
from convexadam.continuous import Level
from convexadam.data import phantom_pair
from convexadam.features import (
    FeatureInput,
    Features,
    LabelFeatures,
    NNUNetFeatures,
    PairFeatures,
    ProbabilityFeatures,
    nnunet,
    nnunet_model,
    uses_labels,
)
from convexadam.geometry import Grid
from convexadam.metrics import dice

installed = pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is None, reason="needs nnU-Net (extra nnunet)")

SHAPE = (26, 21, 18)
SPACINGS = ((1, 1, 1), (2, 3, 2))


def noise(channels: int = 1, affine: np.ndarray | None = None, seed: int = 0) -> Image:
    """Smooth noise, of which an untrained network makes regions of several labels."""
    positions = oracles.indices(SHAPE)
    data = oracles.blobs(positions, SHAPE, channels=channels, sigma=2.5, seed=seed)
    return Image(torch.from_numpy(data).float(), Grid(SHAPE, oracles.oblique_affine() if affine is None else affine))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that tell all axes and directions apart; other voxels and other axes than the images have."""
    described = small_nnunet.dataset()
    plan = small_nnunet.plans((16, 16, 16), (1.1, 2.0, 1.3), transpose=(2, 0, 1))
    nets = {str(fold): small_nnunet.network(described, plan, seed=fold) for fold in range(2)}
    return small_nnunet.write(tmp_path_factory.mktemp("models") / "untrained", described, plan, nets)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder that looks like a model, with nothing that could be loaded."""
    plan = small_nnunet.plans((16, 16, 16), (1.0, 1.0, 1.0))
    folder = small_nnunet.write(tmp_path / "empty", small_nnunet.dataset(), plan, {})
    for fold in ("0", "3", "all"):
        (folder / f"fold_{fold}").mkdir()
        (folder / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"no weights")
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Each time that a network runs."""
    made: list[Any] = []
    run = nnunet.predict

    def counted(*args: Any, **options: Any) -> Any:
        made.append(args)
        return run(*args, **options)

    monkeypatch.setattr(nnunet, "predict", counted)
    yield made


def from_files(model: Path, image: Image, orientation: str, folder: Path, folds: tuple[int, ...]) -> Image:
    """Labels as nnU-Net makes them of a file whose axes point to ``orientation``: its own reader, its own writer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    upright = image.canonical()
    flips = [n for n, letter in enumerate(orientation) if letter in "LPI"]  # axes stay in the order R, A, S
    step = np.eye(4)
    for n in flips:
        step[n, n], step[n, 3] = -1, upright.grid.shape[n] - 1
    stored = Image(upright.data.flip([n + 1 for n in flips]), Grid(upright.grid.shape, upright.grid.affine @ step))
    assert stored.grid.orientation == orientation
    write_image(stored, folder / "image.nii.gz")
    reader = SimpleITKIO()
    array, properties = reader.read_images([str(folder / "image.nii.gz")])
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), folds)
    found = predictor.predict_single_npy_array(array, dict(properties))
    reader.write_seg(found, str(folder / "labels.nii.gz"), properties)
    return read_image(folder / "labels.nii.gz")


def at_places_of(image: Image, other: Image) -> np.ndarray:
    """Values of an image at the voxel centres of another grid, which are its own in another order."""
    places = oracles.mm_of_voxels(other.grid.affine, other.grid.shape).reshape(3, -1)
    inverse = np.linalg.inv(image.grid.affine)
    i, j, k = np.rint(inverse[:3, :3] @ places + inverse[:3, 3:]).astype(int)
    return image.data[0].numpy()[i, j, k].reshape(other.grid.shape)


# Geometry -----------------------------------------------------------------------------------------------------------


@installed
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAI"])
def test_it_finds_what_nnunet_finds_in_a_file(orientation: str, untrained: Path, tmp_path: Path) -> None:
    affine = oracles.oblique_affine(degrees=(12.0, -8.0, 10.0), axes=(2, 0, 1), flips=(True, False, True))
    image = noise(affine=affine)
    features = NNUNetFeatures(model_folder=str(untrained), orientation=orientation)
    found = features.predict(image)
    expected = from_files(untrained, image, orientation, tmp_path, (0, 1))
    assert found.is_label
    assert found.grid is image.grid
    assert len(found.data.unique()) >= 4
    # The file has the affine in float32, whose spacing is off by its rounding: hardly a voxel may tip over.
    assert (found.data[0].numpy() != at_places_of(expected, found)).mean() < 1e-3
    other = NNUNetFeatures(model_folder=str(untrained), orientation="RAS" if orientation != "RAS" else "LPS")
    assert (other.predict(image).data != found.data).float().mean() > 0.05  # so that the orientation would show


@installed
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3)))[::2])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (False, True, True)])
def test_the_order_of_the_voxels_does_not_matter(
    axes: tuple[int, int, int], flips: tuple[bool, bool, bool], untrained: Path
) -> None:
    features = NNUNetFeatures(model_folder=str(untrained), folds=(0,))
    image = noise()
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        step[old, new] = -1 if flip else 1
        step[old, 3] = SHAPE[old] - 1 if flip else 0
    data = image.data.permute(0, *(a + 1 for a in axes)).flip([n + 1 for n, flip in enumerate(flips) if flip])
    i, j, k = data.shape[1:]
    other = Image(data.contiguous(), Grid((i, j, k), image.grid.affine @ step))
    found = features.predict(other)
    assert found.grid is other.grid
    assert np.array_equal(at_places_of(features.predict(image), found), found.data[0].numpy())


# What is compared ---------------------------------------------------------------------------------------------------


@installed
@pytest.mark.parametrize("background", [False, True])
def test_labels_are_compared_as_label_features_do(background: bool, untrained: Path) -> None:
    images, weight = (noise(seed=1), noise(seed=2)), torch.ones(SHAPE)
    weight[:5] = 0
    features = NNUNetFeatures(model_folder=str(untrained), scale=2.0, class_balance=0.5, include_background=background)
    plain = LabelFeatures(scale=2.0, class_balance=0.5, include_background=background)
    scans = [FeatureInput(image=image, weight=weight) for image in images]
    given = [FeatureInput(image=s.image, weight=weight, segmentation=features.predict(s.image)) for s in scans]
    found = features.extract_pair(scans[0], scans[1], SPACINGS)
    expected = plain.extract_pair(given[0], given[1], SPACINGS)
    for pair, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(pair, other, strict=True))
        assert len(pair[0]) >= 3
    replaced = FeatureInput(
        image=images[0], segmentation=Image(torch.zeros(1, *SHAPE, dtype=torch.int32), images[0].grid)
    )
    assert torch.isfinite(features.extract_pair(replaced, scans[1], ((2, 2, 2),))[0][0]).all()


@installed
def test_probabilities_are_compared_as_probability_features_do(untrained: Path) -> None:
    images = noise(seed=1), noise(seed=2)
    features = NNUNetFeatures(model_folder=str(untrained), output="probabilities", scale=2.0, class_balance=0.0)
    for image in images:
        found = features.predict(image)
        assert found.data.dtype == torch.float32
        assert found.data.shape == (len(small_nnunet.ORGANS), *SHAPE)
        torch.testing.assert_close(found.data.sum(0), torch.ones(SHAPE), rtol=0, atol=1e-5)
        labels = NNUNetFeatures(model_folder=str(untrained)).predict(image)
        assert torch.equal(found.data.argmax(0), labels.data[0].long())
    scans = [FeatureInput(image=image) for image in images]
    given = [FeatureInput(image=image, segmentation=features.predict(image)) for image in images]
    plain = ProbabilityFeatures(scale=2.0, class_balance=0.0)
    for pair, other in zip(
        features.extract_pair(scans[0], scans[1], SPACINGS),
        plain.extract_pair(given[0], given[1], SPACINGS),
        strict=True,
    ):
        assert all(torch.equal(a, b) for a, b in zip(pair, other, strict=True))


@installed
def test_folds_are_averaged(untrained: Path) -> None:
    image = noise()
    settings: dict[str, Any] = {"model_folder": str(untrained), "output": "probabilities"}
    first, second, both, every = (
        NNUNetFeatures(**settings, folds=folds).predict(image).data for folds in ((0,), (1,), (0, 1), None)
    )
    assert torch.equal(both, every)
    assert (first - second).abs().max() > 0.05
    # The mean of the logits, whose softmax is the geometric mean up to a factor; logits are kept in half precision.
    mean = (first.double() * second.double()).sqrt()
    torch.testing.assert_close(both.double(), mean / mean.sum(0), rtol=0.02, atol=1e-4)


def test_which_folds_are_taken(empty: Path) -> None:
    def folds(*asked: Any) -> tuple[Any, ...]:
        return nnunet_model.Model.find(
            str(empty), asked or None, "checkpoint_final.pth", test_time_augmentation=True, step=0.5
        ).folds

    assert folds() == (0, 3)
    assert folds("all") == ("all",)
    assert folds(3, "all") == (3, "all")
    for fold in ("0", "3"):
        (empty / f"fold_{fold}" / "checkpoint_final.pth").unlink()
    assert folds() == ("all",)


def test_it_needs_no_labels_and_describes_pairs() -> None:
    features = NNUNetFeatures(model_folder="model")
    assert isinstance(features, PairFeatures)
    assert not isinstance(features, Features)
    assert not uses_labels(Concat(parts=(MindSSC(), features)))
    assert features == NNUNetFeatures(model_folder="model")
    assert hash(features) == hash(NNUNetFeatures(model_folder="model"))


# Manners ------------------------------------------------------------------------------------------------------------


@installed
def test_it_says_nothing_and_leaves_nothing_changed(
    untrained: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("nnUNet")]:
        monkeypatch.delenv(name)
    nnunet_model._load.cache_clear()
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.get_rng_state()
    numbers = np.random.get_state()[1].copy()  # noqa: NPY002
    NNUNetFeatures(model_folder=str(untrained)).predict(noise(seed=5))
    assert (torch.get_num_threads(), torch.backends.cudnn.benchmark) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002
    assert capfd.readouterr() == ("", "")


@pytest.mark.long
@installed
def test_each_image_is_predicted_once_in_a_registration(untrained: Path, calls: list[Any]) -> None:
    features = NNUNetFeatures(model_folder=str(untrained), folds=(0,))
    config = RegistrationConfig(
        linear=None,
        features=Concat(parts=(MindSSC(), features)),
        continuous=Refinement(levels=(Level(iterations=2), Level(iterations=2))),
        continuous_features=NNUNetFeatures(model_folder=str(untrained), folds=(0,), scale=1.0),
        symmetric=True,
    )
    register(noise(seed=1), noise(seed=2), config)
    assert len(calls) == 2


# Cache --------------------------------------------------------------------------------------------------------------


@installed
@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_what_is_on_disk_is_not_predicted_again(output: Any, untrained: Path, tmp_path: Path, calls: list[Any]) -> None:
    kept = tmp_path / "a" / "b"

    def predicted(seed: int = 0, **settings: Any) -> Image:
        features = NNUNetFeatures(model_folder=str(untrained), output=output, cache_dir=str(kept), **settings)
        return features.predict(noise(seed=seed))

    first = predicted()
    assert len(calls) == 1
    assert torch.equal(predicted(scale=9.0, class_balance=0.0).data, first.data)  # another image of the same content
    assert predicted().data.dtype == first.data.dtype
    assert len(calls) == 1
    others = [predicted(seed=1), predicted(folds=(0,)), predicted(step=1.0), predicted(orientation="LPS")]
    assert len(calls) == 1 + len(others)
    assert len(list(kept.iterdir())) == len(calls)
    moved = Image(noise().data, Grid(SHAPE, oracles.oblique_affine(origin=(0.0, 0.0, 0.0))))
    finer = Image(noise().data, Grid(SHAPE, oracles.oblique_affine(spacing=(1.5, 0.8, 2.0))))
    features = NNUNetFeatures(model_folder=str(untrained), output=output, cache_dir=str(kept))
    assert torch.equal(features.predict(moved).data, first.data)  # where it lies makes no difference to the network
    assert len(calls) == 5
    features.predict(finer)
    assert len(calls) == 6


@installed
def test_damaged_files_are_made_anew(untrained: Path, tmp_path: Path, calls: list[Any]) -> None:
    features = NNUNetFeatures(model_folder=str(untrained), cache_dir=str(tmp_path))
    first = features.predict(noise())
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for number, damaged in enumerate((b"", whole[: len(whole) // 2], bytes(flipped), b"no archive")):
        file.write_bytes(damaged)
        assert torch.equal(features.predict(noise()).data, first.data)
        assert len(calls) == 2 + number
        assert torch.equal(features.predict(noise()).data, first.data)
        assert len(calls) == 2 + number
    assert list(tmp_path.iterdir()) == [file]


@installed
def test_another_model_predicts_anew(tmp_path: Path, calls: list[Any]) -> None:
    described, plan = small_nnunet.dataset(), small_nnunet.plans((16, 16, 16), (1.5, 1.5, 1.5))
    names = ("one", "two", "same")
    folders = [
        small_nnunet.write(tmp_path / name, described, plan, {"0": small_nnunet.network(described, plan, seed=seed)})
        for name, seed in zip(names, (0, 1, 0), strict=True)
    ]
    # Archives of torch hold their own serial numbers: the same model is a copy of its files.
    (folders[2] / "fold_0" / "checkpoint_final.pth").write_bytes(
        (folders[0] / "fold_0" / "checkpoint_final.pth").read_bytes()
    )
    one, two, same = (NNUNetFeatures(model_folder=str(f), cache_dir=str(tmp_path / "kept")) for f in folders)
    assert not torch.equal(one.predict(noise()).data, two.predict(noise()).data)
    assert torch.equal(same.predict(noise()).data, one.predict(noise()).data)
    assert len(calls) == 2
    weights = folders[0] / "fold_0" / "checkpoint_final.pth"
    weights.write_bytes((folders[1] / "fold_0" / "checkpoint_final.pth").read_bytes())
    os.utime(weights, ns=(1, 1))
    assert torch.equal(one.predict(noise()).data, two.predict(noise()).data)  # with the same dataset and plans
    assert len(calls) == 2


def test_a_place_that_cannot_hold_a_cache(empty: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"cannot save predictions in .*file"):
        NNUNetFeatures(model_folder=str(empty), cache_dir=str(tmp_path / "file")).predict(noise())


# Errors -------------------------------------------------------------------------------------------------------------


def test_without_nnunet(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2.inference.predict_from_raw_data", None)
    with pytest.raises(
        MissingExtraError, match=r"nnU-Net must be installed .*pip install 'convexadam-torch\[nnunet\]'"
    ):
        NNUNetFeatures(model_folder=str(empty)).predict(noise())


def test_folders_that_hold_no_model(empty: Path, tmp_path: Path) -> None:
    def predict(folder: Path, **settings: Any) -> Image:
        return NNUNetFeatures(model_folder=str(folder), **settings).predict(noise())

    with pytest.raises(FileError, match=r"from .*missing: there is no such folder; model_folder must contain"):
        predict(tmp_path / "missing")
    with pytest.raises(FileError, match=r"dataset\.json and plans\.json is missing; model_folder must contain"):
        predict(tmp_path)
    with pytest.raises(FileError, match=r"there is no fold_\*/checkpoint_best\.pth"):
        predict(empty, checkpoint="checkpoint_best.pth")
    with pytest.raises(ConfigError, match=r"folds must be among those of the model in .*, 0, 3, all, got 4"):
        predict(empty, folds=(0, 4))
    for text, message in (
        ("{", r"cannot read .*dataset\.json: "),
        ("[]", "must be a JSON object, got list"),
        ("{}", "channel_names must be a JSON object, got None"),
    ):
        (empty / "dataset.json").write_text(text)
        with pytest.raises(FileError, match=message):
            predict(empty)


@installed
def test_damaged_models(empty: Path) -> None:
    features = NNUNetFeatures(model_folder=str(empty))
    with pytest.raises(FileError, match=r"cannot load .*: UnpicklingError: .*no file is damaged"):
        features.predict(noise())
    torch.save({"network_weights": {}}, empty / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(FileError, match=r"cannot load .*: KeyError: 'trainer_name'"):
        features.predict(noise())


def test_models_that_do_not_fit(empty: Path) -> None:
    def predict(image: Image, **settings: Any) -> Image:
        return NNUNetFeatures(model_folder=str(empty), **settings).predict(image)

    with pytest.raises(ConfigError, match=r"images must have 1 channels .*\(contrast 0\), got 2"):
        predict(noise(2))
    (empty / "dataset.json").write_text(json.dumps(small_nnunet.dataset(regions_class_order=[1, 2])))
    with pytest.raises(ConfigError, match=r"overlapping regions.*set output='labels'"):
        predict(noise(), output="probabilities")
    plan = small_nnunet.plans((16, 16, 16), (1.0, 1.0, 1.0), image_reader_writer="NibabelIOWithReorient")
    (empty / "plans.json").write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match="reoriented to RAS, got 'LPS'; omit it"):
        predict(noise(), orientation="LPS")


@installed
def test_a_cascade_is_refused(untrained: Path, tmp_path: Path) -> None:
    described = small_nnunet.dataset()
    plan = small_nnunet.plans((16, 16, 16), (1.5, 1.5, 1.5))
    net = small_nnunet.network({"channel_names": dict.fromkeys(range(len(small_nnunet.ORGANS)))}, plan)
    plan["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    folder = small_nnunet.write(tmp_path / "cascade", described, plan, {"0": net})
    with pytest.raises(ConfigError, match="the second stage of a cascade"):
        NNUNetFeatures(model_folder=str(folder)).predict(noise())


@installed
def test_an_image_of_nothing(untrained: Path) -> None:
    blank = Image(torch.zeros(1, *SHAPE), Grid(SHAPE))
    with pytest.raises(InputError, match=r"image must have a voxel other than 0 .*got 0 everywhere"):
        NNUNetFeatures(model_folder=str(untrained)).predict(blank)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_folder": Path("a")}, r"model_folder must be a non-empty string, got .*str\("),
        ({"model_folder": ""}, "model_folder must be a non-empty string"),
        ({"checkpoint": ""}, "checkpoint must be a non-empty string"),
        ({"cache_dir": Path("a")}, "cache_dir must be a non-empty string"),
        ({"folds": 0}, "folds must be None or a tuple"),
        ({"folds": ()}, "folds must be None or a tuple"),
        ({"folds": (0, "best")}, "folds must be None or a tuple"),
        ({"folds": (True,)}, "folds must be None or a tuple"),
        ({"output": "logits"}, "output must be one of 'labels', 'probabilities'"),
        ({"orientation": "RSL"}, "orientation must be three letters"),
        ({"test_time_augmentation": 1}, "test_time_augmentation must be True or False"),
        ({"step": 0.0}, "step"),
        ({"step": 1.5}, "step must be at most 1"),
        ({"scale": -1.0}, "scale"),
        ({"class_balance": -1.0}, "class_balance"),
        ({"include_background": 0}, "include_background must be True or False, got 0"),
    ],
)
def test_unusable_settings(settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        NNUNetFeatures(**{"model_folder": "model"} | settings)


# A trained model ----------------------------------------------------------------------------------------------------


def _mean_dice(fixed_labels: Image, moved_labels: Image) -> float:
    scores = dice(fixed_labels.data[0], moved_labels.data[0])
    return sum(scores.values()) / len(scores)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small convolutions on several threads mostly wait for each other, many times longer on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.long
@installed
@pytest.mark.usefixtures("one_thread")
def test_a_trained_model_helps_where_mind_suffers(tmp_path: Path) -> None:
    """Noisy CT to noisy, biased T2 of people whom the network has not seen; all labels of the phantom are judged."""
    model = str(small_nnunet.trained_on_phantoms(tmp_path / "model"))
    network = NNUNetFeatures(model_folder=model, cache_dir=str(tmp_path / "predicted"))
    compared = {
        "MIND": MindSSC(),
        "nnU-Net": network,
        "both": Concat(parts=(MindSSC(), network), weights=(0.25, 1.0)),
    }
    found: dict[str, list[float]] = {name: [] for name in ("before", *compared)}
    for seed in (101, 102, 103):
        pair = phantom_pair(small_nnunet.SHAPE, contrasts=("ct", "t2"), displacement_mm=25, seed=seed, noise=2)
        for image, labels in ((pair.fixed, pair.fixed_labels), (pair.moving, pair.moving_labels)):
            assert _mean_dice(small_nnunet.organs(labels), network.predict(image)) > 0.6
        found["before"].append(_mean_dice(pair.fixed_labels, pair.moving_labels))
        for name, features in compared.items():
            result = register(pair.fixed, pair.moving, RegistrationConfig(features=features))
            found[name].append(_mean_dice(pair.fixed_labels, result.transform.warp(pair.moving_labels)))
    for before, mind, alone, both in zip(*found.values(), strict=True):
        assert before < mind, found
        assert mind < min(alone, both), found
    mean = {name: sum(scores) / len(scores) for name, scores in found.items()}
    assert mean["both"] > mean["MIND"] + 0.03, found


@installed
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(untrained: Path) -> None:
    image = noise()
    features = NNUNetFeatures(model_folder=str(untrained))
    found = features.predict(image.to("cuda"))
    assert found.data.is_cuda
    # Half precision there; few voxels may tip over.
    assert (found.data.cpu() != features.predict(image).data).float().mean() < 0.02
