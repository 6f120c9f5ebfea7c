# %% [markdown]
"""# 2-D images

A slice is a volume of one voxel along one axis. Everything that takes a volume takes it, and motion stays in its plane.
"""

# %%
import numpy as np

from convexadam import RegistrationConfig, as_image, register
from convexadam.data import phantom_pair
from convexadam.metrics import evaluate_transform

pair = phantom_pair((96, 80, 1), contrasts=("t1", "t1"), displacement_mm=18, seed=3)
fixed, moving = pair.fixed.numpy()[:, :, 0], pair.moving.numpy()[:, :, 0]  # arrays [i, j]

# %% [markdown]
# Arrays of two axes need `dims=2`, so that a volume that lost an axis by mistake is not registered as a slice. The
# affine is 4x4. Files (NIfTI of two axes, or of one slice) say themselves what they are.

# %%
affine = pair.fixed.grid.affine
result = register(as_image(fixed, affine, dims=2), as_image(moving, affine, dims=2))
displacement = result.transform.to_voxels()  # [3, i, j, 1]
print(displacement.abs().amax((1, 2, 3)))
assert not displacement[2].any()  # nothing moves across the slice

# %% [markdown]
# Overlap, surface distance (of outlines in the plane) and folding (of 2x2 determinants).

# %%
scores = evaluate_transform(result.transform, fixed_labels=pair.fixed_labels, moving_labels=pair.moving_labels)
print({name: round(scores[name], 3) for name in ("dice_before", "dice", "hd95_before_mm", "hd95_mm", "folded_percent")})
assert scores["dice"] > scores["dice_before"]

# %% [markdown]
# The axes in the plane may be restricted further: here to A alone.

# %%
along_a = register(pair.fixed, pair.moving, RegistrationConfig(restrict_deformation=(0, 1, 0)))
assert not np.any(along_a.transform.disp_mm.numpy()[[0, 2]])
