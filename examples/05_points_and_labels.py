# %% [markdown]
"""# Points and labels

A transform maps points from fixed to moving space; its inverse maps points of the moving image to fixed space.
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
transform = register(pair.fixed, moving).transform

# %% [markdown]
# Map points of the *fixed* image, in millimetres, to the moving image.

# %%
mapped_mm = transform.warp_points(pair.fixed_landmarks_mm, space="mm")
error_mm = (mapped_mm - pair.moving_landmarks_mm).norm(dim=1)
before_mm = (pair.fixed_landmarks_mm - pair.moving_landmarks_mm).norm(dim=1)
print(f"landmarks: {before_mm.mean():.1f} -> {error_mm.mean():.1f} mm")
assert error_mm.mean() < 0.5 * before_mm.mean()
assert np.allclose(tre(pair.fixed_landmarks_mm, pair.moving_landmarks_mm, transform), error_mm)

# %% [markdown]
# The same points as voxel indices: of the fixed grid before, of the moving grid after.

# %%
fixed_vox = pair.fixed.grid.world_to_index(pair.fixed_landmarks_mm)
mapped_vox = transform.warp_points(fixed_vox, space="voxel", moving=moving)
assert np.allclose(moving.grid.index_to_world(mapped_vox), mapped_mm)

# %% [markdown]
# Points of the *moving* image are mapped by the inverse, which is solved on the grid of the moving image.

# %%
inverse = transform.inverse(reference=moving)
back_mm = inverse.warp_points(mapped_mm, space="mm")
off_mm = (back_mm - pair.fixed_landmarks_mm).norm(dim=1)
print(f"forward and inverse: error {off_mm.mean():.3f} mm; inverse error {inverse.inverse_error_mm:.3f} mm")
assert off_mm.median() < 0.5

# %% [markdown]
# Warp labels of the moving image onto the fixed grid. Integer values are never mixed.

# %%
moved_labels = transform.warp(moving_labels)
assert set(moved_labels.data.unique().tolist()) <= set(moving_labels.data.unique().tolist())
before = dice(pair.fixed_labels.data[0], resample(moving_labels, pair.fixed.grid).data[0])
after = dice(pair.fixed_labels.data[0], moved_labels.data[0])
for label, overlap in after.items():
    print(f"{pair.label_names[label]:>18} {before[label]:.3f} -> {overlap:.3f}")
assert sum(after.values()) > sum(before.values())
