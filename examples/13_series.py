# %% [markdown]
"""# The motion of a series

Frames of one body that turns are registered to the first of them.
"""

# %%
import numpy as np
import torch
from matplotlib.figure import Figure

from convexadam import Affine, Image
from convexadam.data import phantom_pair
from convexadam.series import FrameSeries, register_series

rest = phantom_pair((48, 40, 36), contrasts=("t1", "t1"), seed=1).fixed
frames = []
for number in range(4):
    angle = np.deg2rad(2 * number)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    moved = Affine(turn).inverse().warp(rest, rest.grid)
    noise = torch.randn(moved.data.shape, generator=torch.Generator().manual_seed(number))
    frames.append(Image(moved.data + 0.02 * rest.data.max() * noise, rest.grid))

# %% [markdown]
# `convexadam series frames.nii.gz --output-dir corrected` does the same with files.

# %%
result = register_series(FrameSeries(frames=tuple(frames), step_s=2.0))
for one in result.motion:
    print(
        f"frame {one.frame}: {one.rotation_s_degrees:5.2f} degrees, moved {one.mean_displacement_mm:.1f} mm on average"
    )
assert abs(result.motion[3].rotation_s_degrees - 6) < 0.3

# %%
# %matplotlib inline
figure = Figure(figsize=(7, 2.4), layout="constrained")
rotations, translations = figure.subplots(1, 2)
for axis in "ras":
    rotations.plot([getattr(one, f"rotation_{axis}_degrees") for one in result.motion], label=axis.upper())
    translations.plot([getattr(one, f"translation_{axis}_mm") for one in result.motion], label=axis.upper())
rotations.set(title="rotation, degrees", xlabel="frame")
translations.set(title="translation, mm", xlabel="frame")
rotations.legend()
figure

# %% [markdown]
# Without motion, voxels vary less over time: what is left is noise, and some interpolation.


# %%
def deviation(series) -> float:
    """Mean standard deviation over time."""
    return float(torch.stack([frame.data for frame in series]).std(0).mean())


print(f"standard deviation over time: {deviation(frames):.1f} before, {deviation(result.moved.frames):.1f} after")
assert deviation(result.moved.frames) < deviation(frames)
