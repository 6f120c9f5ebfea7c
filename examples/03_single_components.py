# %% [markdown]
"""# Single components

Every step is a function of plain tensors, in voxels: use one of them in your own pipeline.
"""

# %%
import torch

from convexadam import ConvexSearch, DisplacementField, Refinement
from convexadam.continuous import Level
from convexadam.data import phantom_pair
from convexadam.discrete import Window, cost_volume, coupled_convex, make_inverse_consistent
from convexadam.kernels.mind_ssc import mind_ssc
from convexadam.kernels.resize import control_points_to_voxels, pool
from convexadam.metrics import dice, folded_percent, sdlogj, tre

pair = phantom_pair((56, 48, 42), contrasts=("ct", "t2"), displacement_mm=28, seed=5)
shape = pair.fixed.grid.shape


def error(disp_vox: torch.Tensor) -> float:
    """Mean distance to the true field within the organs, in voxels."""
    return float((disp_vox - pair.disp_vox).norm(dim=0)[pair.fixed_labels.data[0] > 0].mean())


# %% Features: [i, j, k] -> [12, i, j, k]
fixed, moving = (mind_ssc(image.data[0], radius=1, dilation=2) for image in (pair.fixed, pair.moving))

# %% The discrete stage step by step: search radius 3 control points of 4 voxels, in both directions
spacing, window = (4, 4, 4), Window((3, 3, 3))
coarse_fixed, coarse_moving = pool(fixed, spacing), pool(moving, spacing)
costs = cost_volume(coarse_fixed, coarse_moving, window)  # [343, i, j, k]
forward = coupled_convex(costs, window, parabolic_fit=True)
backward = coupled_convex(cost_volume(coarse_moving, coarse_fixed, window), window, parabolic_fit=True)
forward, backward = make_inverse_consistent(forward, backward)
step_by_step = control_points_to_voxels(forward * 4, spacing, shape)  # control points -> voxels

# %% The same as one component
coarse = ConvexSearch(spacing=4, radius=3)(fixed, moving)
print(f"largest difference to single steps {(coarse - step_by_step).abs().max():.1e} voxels")
assert (coarse - step_by_step).abs().mean() < 0.01  # the component stores costs in half precision

# %% The continuous stage; `start` may be any field, or None for zero
fine = Refinement(levels=(Level(spacing=2, iterations=60),))(fixed, moving, start=coarse)
errors = [error(torch.zeros_like(fine)), error(coarse), error(fine)]
print("mean error in voxels: before {:.2f}, coarse {:.2f}, fine {:.2f}".format(*errors))

# %% Convert to millimetres, and evaluate
transform = DisplacementField.from_voxels(fine, pair.fixed.grid)
moved = transform.warp(pair.moving_labels)
overlap = dice(pair.fixed_labels.data[0], moved.data[0])
distances = tre(pair.fixed_landmarks_mm, pair.moving_landmarks_mm, transform)
print(f"Dice {sum(overlap.values()) / len(overlap):.3f}, TRE {distances.mean():.2f} mm")
print(f"SDlogJ {sdlogj(fine):.3f}, folded {folded_percent(fine):.3f} %")
assert errors[0] > errors[1] > errors[2]
assert distances.mean() < tre(pair.fixed_landmarks_mm, pair.moving_landmarks_mm).mean()
