# %% [markdown]
"""# From SimpleITK and back

SimpleITK counts in millimetres LPS and in `k, j, i`. Both are turned on the way in and on the way out.
"""

# %%
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from convexadam import register, write_transform
from convexadam.data import phantom_pair
from convexadam.geometry import resample
from convexadam.io import image_as

# %% [markdown]
# Two images of SimpleITK: an oblique fixed one, and a moving one with a grid of its own.

# %%
turn = sitk.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.05)
direction = np.reshape(turn.GetMatrix(), (3, 3))
affine = np.eye(4)
affine[:3, :3], affine[:3, 3] = direction @ np.diag([7.0, 6.5, 8.0]), direction @ [-200, -150, -140]
pair = phantom_pair((58, 46, 36), affine=affine, contrasts=("ct", "t1"), displacement_mm=18, seed=2)
fixed = image_as(pair.fixed, sitk.Image)
moving = image_as(resample(pair.moving, pair.moving.grid.canonical().with_spacing((7.0, 7.0, 7.0))), sitk.Image)
print("fixed", fixed.GetSize(), "moving", moving.GetSize())

# %% [markdown]
# What comes in is what comes back: the moved image is one of SimpleITK, on the fixed image's grid.

# %%
result = register(fixed, moving)
moved = result.moved_as(sitk.Image)
assert moved.GetSize() == fixed.GetSize()

# %% [markdown]
# The transform as a file that SimpleITK reads, and the same image from `sitk.Resample`.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "transform.h5"
    write_transform(result.transform, path)
    by_itk = sitk.Resample(
        moving, fixed, sitk.ReadTransform(str(path)), sitk.sitkLinear, float(result.moved.data.min())
    )

ours, theirs = sitk.GetArrayViewFromImage(moved), sitk.GetArrayViewFromImage(by_itk)
inner = (slice(2, -2),) * 3  # at the border of the field of view the two have margins of their own
difference = np.abs(ours - theirs)[inner] / np.ptp(ours)
print(f"largest difference to SimpleITK {difference.max():.1e} of the range, mean {difference.mean():.1e}")
assert np.quantile(difference, 0.99) < 1e-3
