# %% [markdown]
"""# Settings for your task

Three pairs with labels decide which settings suit them; a fourth one, not looked at, shows what that is worth.
We begin with intensities. They do not suit two contrasts, and the search has to find out.
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
schema_version = 1
[discrete]              # first the search: eight draws
draws = 8
features = [{ type = "Intensity" }, { type = "MindSSC" }, { type = "MindSSC", radius = 2 }]
discrete.spacing = [3, 4, 6]
discrete.radius = [3, 4, 5]
[continuous]            # then the refinement: six draws, each of which shows two numbers of steps
draws = 6
continuous.smoothing = { type = "GaussianSmoothing" }
"continuous.smoothing.sigma" = [0.7, 1.3, 2.0]
continuous.regularisers.0.weight = { from = 0.2, to = 2.0, log = true }
read_off.iterations = [20, 40]
"""
pairs = [phantom_pair((40, 34, 30), contrasts=("ct", "t2"), seed=seed) for seed in range(4)]
start = dataclasses.replace(preset("published"), features=Intensity())


def files(folder: Path, number: int) -> PairFiles:
    """Write a pair as it would lie on disk."""
    paths = {k: folder / f"{number}_{k}.nii.gz" for k in ("fixed", "moving", "fixed_labels", "moving_labels")}
    for kind, path in paths.items():
        write_image(getattr(pairs[number], kind), path)
    return PairFiles(name=f"patient {number}", **paths)


def mean_dice(config: RegistrationConfig) -> float:
    """Mean Dice of the pair that was not looked at."""
    labels = {"fixed_labels": pairs[3].fixed_labels, "moving_labels": pairs[3].moving_labels}
    return evaluate_transform(register(pairs[3].fixed, pairs[3].moving, config).transform, **labels)["dice"]


# %%
space = dataclasses.replace(Space.from_toml(SPACE), base=start)
with TemporaryDirectory() as folder:
    found = tune([files(Path(folder), number) for number in range(3)], Path(folder) / "search", space=space)
begun, best = mean_dice(start), mean_dice(found.best.settings)
print(f"{len(found.candidates)} settings tried; the best compares {found.best.settings.features}")
print(f"Dice of another pair: {begun:.3f} as begun, {best:.3f} as found")
assert best > begun + 0.02
