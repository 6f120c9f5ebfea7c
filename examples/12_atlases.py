# %% [markdown]
"""# Segmentation by atlases

Labelled images are registered to one without labels, and their labels are fused.
"""

# %%
from statistics import fmean

import torch
from matplotlib.figure import Figure

from convexadam import Image, register
from convexadam.data import phantom_pair
from convexadam.metrics import dice
from convexadam.segmentation import JointFusion, LocalVote, MajorityVote, fuse_labels

SHAPE = (44, 36, 32)
target = phantom_pair(SHAPE, displacement_mm=15, seed=0)
atlases = [phantom_pair(SHAPE, displacement_mm=15, seed=seed) for seed in range(3)]

# %% [markdown]
# Each atlas, here the same body in another position, is registered to the target.

# %%
images, labels = [], []
for atlas in atlases:
    transform = register(target.fixed, atlas.moving).transform
    images.append(transform.warp(atlas.moving))
    labels.append(transform.warp(atlas.moving_labels))


def overlap(found) -> float:
    """Mean Dice of all organs."""
    return fmean(dice(target.fixed_labels, found).values())


print("single atlases:", ", ".join(f"{overlap(one):.3f}" for one in labels))

# %% [markdown]
# `convexadam segment target.nii.gz --atlases atlases.csv --output-dir segmented` does all of this with files.

# %%
for method in (MajorityVote(), LocalVote(), JointFusion()):
    found = fuse_labels(target.fixed, images, labels, method=method)
    print(f"{type(method).__name__}: {overlap(found.labels):.3f}")

# %% [markdown]
# The labels of joint fusion, where they are wrong, and how sure it is, which needs no truth.

# %%
# %matplotlib inline
figure = Figure(figsize=(9, 2.6), layout="constrained")
wrong = Image((found.labels.data != target.fixed_labels.data).to(torch.uint8), target.fixed.grid)
shown = {"target": target.fixed, "labels": found.labels, "wrong": wrong, "confidence": found.confidence}
for axes, (title, image), cmap in zip(
    figure.subplots(1, 4), shown.items(), ("gray", "nipy_spectral", "gray", "viridis"), strict=True
):
    axes.imshow(image.slice("coronal"), cmap=cmap, aspect="auto")
    axes.set(title=title, xticks=[], yticks=[])
figure

# %%
assert overlap(found.labels) > fmean(overlap(one) for one in labels)
