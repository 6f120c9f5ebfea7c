# %% [markdown]
"""# Points and labels

Which way do points go? From fixed to moving space; the inverse takes those of the moving image back.
"""

# %%
import numpy as np

from convexadam import register
from convexadam.data import phantom_pair
from convexadam.geometry import resample
from convexadam.metrics import dice, tre

pair = phantom_pair((64, 54, 48), displacement_mm=20, seed=4)
other = pair.moving.grid.canonical().with_spacing((8.0, 7.0, 6.0))
moving, moving_labels = resample(pair.moving, other), resample(pair.moving_labels, other)
result = register(pair.fixed, moving)
transform = result.transform

# %% [markdown]
# Points of the *fixed* image, in millimetres: where are they in the moving image?

# %%
found_mm = transform.warp_points(pair.fixed_landmarks_mm, space="mm")
error_mm = (found_mm - pair.moving_landmarks_mm).norm(dim=1)
before_mm = (pair.fixed_landmarks_mm - pair.moving_landmarks_mm).norm(dim=1)
print(f"landmarks: {before_mm.mean():.1f} -> {error_mm.mean():.1f} mm")
assert error_mm.mean() < 0.5 * before_mm.mean()
assert np.allclose(tre(pair.fixed_landmarks_mm, pair.moving_landmarks_mm, transform), error_mm)

# %% [markdown]
# The same points as voxel indices: those of the fixed grid come, those of the moving grid go.

# %%
found_vox = transform.warp_points(pair.fixed.grid.to_voxels(pair.fixed_landmarks_mm), space="voxel", moving=moving)
assert np.allclose(moving.grid.to_mm(found_vox), found_mm)

# %% [markdown]
# Points of the *moving* image go the other way, through the inverse. It is solved on the moving image's grid.

# %%
inverse = transform.inverse(onto=moving)
back_mm = inverse.warp_points(found_mm, space="mm")
off_mm = (back_mm - pair.fixed_landmarks_mm).norm(dim=1)
print(f"there and back: off by {off_mm.mean():.3f} mm; the inverse is solved to {inverse.residual_mm:.3f} mm")
assert off_mm.median() < 0.5

# %% [markdown]
# Labels of the moving image come onto the fixed grid. Whole numbers are never mixed.

# %%
moved_labels = transform.warp(moving_labels)
assert set(moved_labels.data.unique().tolist()) <= set(moving_labels.data.unique().tolist())
before = dice(pair.fixed_labels.data[0], resample(moving_labels, pair.fixed.grid).data[0])
after = dice(pair.fixed_labels.data[0], moved_labels.data[0])
for label, overlap in after.items():
    print(f"{pair.label_names[label]:>18} {before[label]:.3f} -> {overlap:.3f}")
assert sum(after.values()) > sum(before.values())
