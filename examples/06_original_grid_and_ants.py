# %% [markdown]
"""# The original moving image, and over to ANTs

Two scans that lie apart, with grids of their own. Nothing is resampled beforehand: the transform goes all the way.
"""

# %%
import tempfile
from pathlib import Path

import numpy as np

from convexadam import Affine, Grid, Image, compose, read_transform, register, write_image, write_transform
from convexadam.data import phantom_pair
from convexadam.metrics import tre

# %% [markdown]
# The patient lay elsewhere, and turned by 12 degrees: the header of the moving scan says so.

# %%
pair = phantom_pair((62, 50, 42), contrasts=("ct", "t1"), displacement_mm=15, seed=6)
cos, sin = np.cos(np.deg2rad(12)), np.sin(np.deg2rad(12))
motion = Affine(np.array([[cos, -sin, 0, 45], [sin, cos, 0, -20], [0, 0, 1, 30], [0, 0, 0, 1]]))
moving = Image(pair.moving.data, Grid(pair.moving.grid.shape, motion.matrix @ pair.moving.grid.affine))
landmarks_mm = motion(pair.moving_landmarks_mm)

# %%
result = register(pair.fixed, moving)
before, after = (tre(pair.fixed_landmarks_mm, landmarks_mm, t).mean() for t in (Affine(), result.transform))
print(f"TRE {before:.1f} -> {after:.1f} mm; the linear part is {result.linear.model if result.linear else 'none'}")
assert after < 0.2 * before

# %% [markdown]
# The moving scan as it came, on the fixed grid, is one call; so is the fixed scan on the moving one's grid.

# %%
moved = result.transform.warp(moving, mode="cubic")
fixed_there = result.transform.inverse(onto=moving).warp(pair.fixed)
assert moved.grid == pair.fixed.grid
assert fixed_there.grid == moving.grid

# %% [markdown]
# Over to ANTs: `antsApplyTransforms -d 3 -r fixed.nii.gz -i moving.nii.gz -t transform.nii.gz -o moved.nii.gz`.
# A later transform of moving space joins by `compose`, and the image is still interpolated once.

# %%
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    write_image(pair.fixed, folder / "fixed.nii.gz")
    write_image(moving, folder / "moving.nii.gz")
    write_transform(result.transform, folder / "transform.nii.gz")
    again = read_transform(folder / "transform.nii.gz")

there_and_back = compose(again, motion.inverse())
after = tre(pair.fixed_landmarks_mm, pair.moving_landmarks_mm, there_and_back).mean()
print(f"the transform from the file, then the motion undone: {after:.1f} mm")
assert np.allclose(again(pair.fixed_landmarks_mm), result.transform(pair.fixed_landmarks_mm), atol=1e-3)
