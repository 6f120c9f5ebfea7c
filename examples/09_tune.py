# %% [markdown]
"""# Self-configuration

Settings are selected on three pairs with labels; a fourth, held-out pair evaluates the result.
The base settings compare intensities, which do not suit two contrasts.
"""

# %%
import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

from convexadam import Intensity, RegistrationConfig, preset, register
from convexadam.data import phantom_pair
from convexadam.io import PairFiles, write_image
from convexadam.metrics import evaluate_transform
from convexadam.tuning import Space, tune

SPACE = """
schema_version = 2
[discrete]              # first the search: six samples
samples = 6
features = [{ type = "Intensity" }, { type = "MindSSC" }, { type = "MindSSC", radius = 2 }]
discrete.spacing = [3, 4, 6]
discrete.radius = [3, 4, 5]
[continuous]            # then the refinement: four samples with two checkpoints each
samples = 4
continuous.update_smoothing = { type = "GaussianSmoothing" }
"continuous.update_smoothing.sigma" = [0.7, 1.3, 2.0]
continuous.regularisers.0.weight = { from = 0.2, to = 2.0, log = true }
checkpoints.iterations = [20, 40]
"""
pairs = [phantom_pair((32, 28, 24), contrasts=("ct", "t2"), seed=seed) for seed in range(4)]
start = dataclasses.replace(preset("published"), features=Intensity())


def files(folder: Path, number: int) -> PairFiles:
    """Write a pair to files."""
    paths = {k: folder / f"{number}_{k}.nii.gz" for k in ("fixed", "moving", "fixed_labels", "moving_labels")}
    for kind, path in paths.items():
        write_image(getattr(pairs[number], kind), path)
    return PairFiles(id=f"patient {number}", **paths)


def mean_dice(config: RegistrationConfig) -> float:
    """Mean Dice of the held-out pair."""
    labels = {"fixed_labels": pairs[3].fixed_labels, "moving_labels": pairs[3].moving_labels}
    return evaluate_transform(register(pairs[3].fixed, pairs[3].moving, config).transform, **labels)["dice"]


# %%
space = dataclasses.replace(Space.from_toml(SPACE), base=start)
with TemporaryDirectory() as folder:
    found = tune([files(Path(folder), number) for number in range(3)], Path(folder) / "search", space=space)
before, after = mean_dice(start), mean_dice(found.best.settings)
print(f"{len(found.candidates)} candidates; features of the best: {found.best.settings.features}")
print(f"Dice of the held-out pair: {before:.3f} with the base settings, {after:.3f} with the best")
assert after > before + 0.02
