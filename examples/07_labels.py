# %% [markdown]
"""# Label maps as features

Organs that were segmented in both images can be brought onto each other, alone or beside the images.
"""

# %%
from convexadam import Concat, IsotropicGrid, MindSSC, RegistrationConfig, register
from convexadam.data import phantom_pair
from convexadam.features import LabelFeatures
from convexadam.geometry import resample
from convexadam.metrics import dice

pair = phantom_pair((64, 54, 48), contrasts=("ct", "t2"), displacement_mm=25, seed=3)
fixed_labels = pair.fixed_labels.data[0]


def overlap(moved_labels) -> float:
    """Mean Dice of all organs."""
    scores = dice(fixed_labels, moved_labels.data[0])
    return sum(scores.values()) / len(scores)


# %% [markdown]
# The labels come beside the images, which the linear alignment and `result.moved` need. They may lie on another grid.

# %%
other = pair.moving.grid.canonical().with_spacing((5.0, 5.0, 4.0))
labels = {"fixed_labels": pair.fixed_labels, "moving_labels": resample(pair.moving_labels, other)}
found = {"nothing": overlap(pair.moving_labels)}
for name, features, given in (
    ("MIND", MindSSC(), {}),
    ("labels", LabelFeatures(), labels),
    ("both", Concat(parts=(MindSSC(), LabelFeatures()), weights=(1.0, 1.0)), labels),
):
    result = register(pair.fixed, pair.moving, RegistrationConfig(features=features), **given)
    found[name] = overlap(result.transform.warp(pair.moving_labels))
print("mean Dice by what was compared:", ", ".join(f"{name} {score:.3f}" for name, score in found.items()))
assert found["labels"] > found["MIND"] > found["nothing"]
assert found["both"] > found["MIND"]

# %% [markdown]
# Where there are no images, the label maps are the images too; cubic voxels of 7 mm do for a first look.

# %%
quick = RegistrationConfig(features=LabelFeatures(), grid=IsotropicGrid(spacing_mm=7.0), linear=None)
result = register(
    pair.fixed_labels, pair.moving_labels, quick, fixed_labels=pair.fixed_labels, moving_labels=pair.moving_labels
)
print(f"without images: {overlap(result.transform.warp(pair.moving_labels)):.3f}")
assert overlap(result.transform.warp(pair.moving_labels)) > found["nothing"]
