# %% [markdown]
"""# A first pair

A CT and a T1-weighted scan of the same procedural torso, one of them deformed, as arrays. The true motion is known.
"""

# %%
import torch

from convexadam import register
from convexadam.data import phantom_pair
from convexadam.metrics import evaluate_transform

pair = phantom_pair((64, 54, 48), contrasts=("ct", "t1"), displacement_mm=20, seed=3)
fixed, moving = pair.fixed.numpy(), pair.moving.numpy()  # numpy arrays [i, j, k] ...
affine = pair.fixed.grid.affine  # ... and their 4x4 affine, voxel indices to mm RAS+

# %% [markdown]
# One call. Arrays have no geometry, so the affine is passed with them; without it voxels are 1 mm.

# %%
result = register(fixed, moving, fixed_affine=affine, moving_affine=affine)
print(result.transform.grid)
print({name: round(seconds, 2) for name, seconds in result.timings.items()})

# %% [markdown]
# The transform maps points of fixed space to moving space. It warps images, labels and points.

# %%
moved = result.moved  # the moving scan on the fixed grid
moved_labels = result.transform.warp(pair.moving_labels)  # integers: values are selected, never mixed
assert set(moved_labels.data.unique().tolist()) <= set(pair.moving_labels.data.unique().tolist())

mapped = result.transform.warp_points(pair.fixed_landmarks_mm, space="mm")
for name, points_mm in (("fixed", pair.fixed_landmarks_mm), ("mapped", mapped), ("truth", pair.moving_landmarks_mm)):
    print(f"{name:>6}: R {points_mm[0, 0]:.1f}, A {points_mm[0, 1]:.1f}, S {points_mm[0, 2]:.1f} mm")

# %% [markdown]
# A result shows itself in a notebook, and draws a figure.

# %%
result

# %%
result.plot()

# %% [markdown]
# Evaluation: overlap of the organs, distance of the landmarks, folding.

# %%
scores = evaluate_transform(
    result.transform,
    fixed_labels=pair.fixed_labels,
    moving_labels=pair.moving_labels,
    fixed_landmarks_mm=pair.fixed_landmarks_mm,
    moving_landmarks_mm=pair.moving_landmarks_mm,
    surface=False,
)
error_vox = (result.transform.to_voxels() - pair.disp_vox).norm(dim=0)[pair.fixed_labels.data[0] > 0]
print(f"Dice {scores['dice_before']:.3f} -> {scores['dice']:.3f}")
print(f"TRE  {scores['tre_before_mm']:.2f} -> {scores['tre_mm']:.2f} mm, folded {scores['folded_percent']:.3f} %")
print(f"median error within the organs {torch.median(error_vox):.2f} voxels")
assert scores["dice"] > scores["dice_before"]
assert scores["tre_mm"] < scores["tre_before_mm"]
