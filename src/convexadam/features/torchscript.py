"""Feature extractors exported as TorchScript."""

from __future__ import annotations

import functools
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch.nn import functional

from convexadam._arguments import check_arguments
from convexadam._checks import check_choice, check_count, check_number, show
from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.errors import ConfigError, FileError
from convexadam.features.intensity import Intensity, rescale_channels
from convexadam.features.model_files import check_torchscript
from convexadam.features.orientation import Reorientation, check_orientation
from convexadam.features.patches import PooledSum, iterate_patches
from convexadam.features.prediction_cache import Stamp, stat_file
from convexadam.features.working_memory import full_memory_bytes, pooled_memory_bytes
from convexadam.geometry import Image
from convexadam.geometry.tensors import all_finite


@final
@dataclass(frozen=True, kw_only=True)
class TorchScriptFeatures:
    """Feature maps of a network saved with ``torch.jit.trace(...).save(path)`` or ``torch.jit.script``.

    The network takes float32 ``[1, c, i, j, k]`` on the working grid and returns ``[1, f, i, j, k]``, a feature vector
    for each voxel. It runs on the device of the images, in evaluation mode and without gradients.

    A TorchScript file contains no Python code, and loading it executes no pickle, unlike ``torch.load``. It is a
    program nevertheless. Files whose code calls operators that read or write files are refused; for others, use trusted
    files only all the same.

    Attributes
    ----------
    path
        Path of the file.
    patch
        Size in voxels, for all axes or for each, of the patches to which the network is applied; smaller volumes are
        padded with their edge values. ``None`` applies it to the whole volume. Maps are averaged over blocks during
        extraction, so that no full-resolution map of a large volume is stored.
    overlap
        Smallest overlap of neighbouring patches, in voxels. A quarter of it at either side, or ``receptive_radius`` if
        that is larger, is discarded, and the rest is blended: a network whose receptive radius is not larger gives the
        result for the whole volume. A network that normalises by statistics of its input does not.
    normalise
        ``"range"`` maps intensities to [0, 1] as `Intensity` does, ``"deviation"`` to zero mean and unit variance over
        the voxels of positive weight, for each channel; ``"none"`` keeps them.
    orientation
        Directions of the axes i, j, k of the volumes for which the network was trained, such as ``"RAS"``; volumes are
        reordered by permuting and reversing axes, and maps are reordered back. ``None`` uses the axes of the working
        grid, those of the fixed image.
    receptive_radius
        Largest distance in voxels at which a voxel influences a feature vector; 0 if unknown.
    scale
        Factor of all channels. Squared feature differences are weighed against the regulariser: a larger scale gives
        the features more weight.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> import torch
    >>> from convexadam.features import TorchScriptFeatures
    >>> network = torch.nn.Conv3d(1, 4, 3, padding=1)
    >>> torch.jit.trace(network, torch.rand(1, 1, 16, 16, 16)).save("network.pt")  # doctest: +SKIP
    >>> features = TorchScriptFeatures(path="network.pt")  # doctest: +SKIP
    """

    path: str
    patch: int | tuple[int, int, int] | None = None
    overlap: int = 16
    normalise: Literal["range", "deviation", "none"] = "range"
    orientation: str | None = None
    receptive_radius: int = 0
    scale: float = 1.0
    channels_last: ClassVar[bool] = False
    joins_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise ConfigError(f"path must be a non-empty string, got {show(self.path)}; convert paths with str(...)")
        for name in ("overlap", "receptive_radius"):
            check_count(getattr(self, name), name)
        if self.patch is not None:
            sizes = self.patch if isinstance(self.patch, tuple) else (self.patch,) * 3
            for size in sizes:
                check_count(size, "patch", least=1)
            if len(sizes) != 3 or not self.overlap < min(sizes):
                raise ConfigError(
                    f"patch must be one size or three, each larger than overlap ({self.overlap}), got "
                    f"{show(self.patch)}; increase patch or reduce overlap"
                )
            if self.receptive_radius and not 2 * self.receptive_radius < self.overlap:
                raise ConfigError(
                    f"overlap must be more than twice receptive_radius ({self.receptive_radius}), got {self.overlap}; "
                    "increase overlap"
                )
        check_choice(self.normalise, "normalise", ("range", "deviation", "none"))
        if self.orientation is not None:
            check_orientation(self.orientation)
        check_number(self.scale, "scale", above=True)

    @check_arguments
    def count_channels(self, image_channels: int) -> int | None:
        """Return ``None``: the number of channels depends on the network."""
        return None

    @check_arguments
    def memory_bytes_per_voxel(self, channels: int) -> float:
        """Return the working memory beyond that of the network, in bytes per voxel; see `EstimatesMemory`."""
        return full_memory_bytes(channels) if self.patch is None else pooled_memory_bytes()

    @check_arguments
    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return ``[f, i, j, k]``, float32.

        Raises
        ------
        FileError
            If the file is not a TorchScript file.
        ConfigError
            If the network fails, or does not return finite values for each voxel.
        """
        return self._extract(image, ((1, 1, 1),), weight, None)[0]

    @check_arguments
    def extract_pooled(
        self, image: Image, spacings: tuple[Triple, ...], /, *, weight: Volume | None = None
    ) -> tuple[Pooled, ...]:
        """Return ``[f, i // si, j // sj, k // sk]`` for each spacing; raises the same errors as a call."""
        return self._extract(image, spacings, weight, weight)

    @torch.no_grad()
    def _extract(
        self, image: Image, spacings: tuple[Triple, ...], weight: Volume | None, pool_weight: Volume | None
    ) -> tuple[Pooled, ...]:
        """Average maps over blocks, weighted by ``pool_weight``; ``weight`` applies to intensity statistics."""
        model = _load(stat_file(Path(self.path)), image.data.device)
        reorient = Reorientation() if self.orientation is None else Reorientation.towards(image.grid, self.orientation)
        data, shape = self._normalise(image, weight), image.grid.shape
        sizes = self._get_patch_size(shape, reorient)
        margin = max(self.receptive_radius, self.overlap // 4)
        sums = [PooledSum(shape, spacing) for spacing in spacings]
        for patch in iterate_patches(shape, sizes, overlap=self.overlap, margin=margin, device=data.device):
            values = self._apply(model, patch.crop(data), sizes, reorient) * patch.weight
            if pool_weight is not None:
                values *= patch.crop(pool_weight[None])
            for pooled in sums:
                pooled.add(values, patch.start)
        maps = tuple(pooled.average(pool_weight).mul_(self.scale) for pooled in sums)
        if not all(all_finite(m) for m in maps):
            raise ConfigError(
                f"features must be finite, got NaN or Inf from {self.path}; check that normalise={self.normalise!r} is "
                "that of its training"
            )
        return maps

    def _get_patch_size(self, shape: Triple, reorient: Reorientation) -> Triple:
        """Return the patch size along the axes of the volume, in voxels."""
        if self.patch is None:
            return shape
        return reorient.invert_permute(self.patch if isinstance(self.patch, tuple) else (self.patch,) * 3)

    def _normalise(self, image: Image, weight: Volume | None) -> Channels:
        if self.normalise == "none":
            return image.data.float()
        if self.normalise == "range":
            return Intensity()(image, weight=weight)
        data = rescale_channels(image.data)
        for channel in data:
            values = channel if weight is None or not bool((weight > 0).any()) else channel[weight > 0]
            deviation = values.std(correction=0)
            channel.sub_(values.mean()).div_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))
        return data

    def _apply(self, model: Any, data: Pooled, sizes: Triple, reorient: Reorientation) -> Pooled:
        """Apply the network to one box of voxels, padded to ``sizes`` with its edge values."""
        missing = [size - n for size, n in zip(sizes, data.shape[1:], strict=True)]
        if any(missing):
            data = functional.pad(data[None], (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")[0]
        batch = reorient(data)[None].contiguous()
        try:
            maps = model(batch)
        except RuntimeError as error:
            if "memory" in str(error):  # out of memory, on any device: register turns it into an error with advice
                raise
            raise ConfigError(
                f"path must be a network that accepts {tuple(batch.shape)} voxels, got an error from {self.path}: "
                f"{str(error).strip().splitlines()[-1]}; set patch to a size that it accepts"
            ) from error
        if not isinstance(maps, torch.Tensor) or maps.ndim != 5 or maps.shape[2:] != batch.shape[2:] or len(maps) != 1:
            got = tuple(maps.shape) if isinstance(maps, torch.Tensor) else type(maps).__name__
            raise ConfigError(
                f"path must be a network that returns [1, f, {', '.join(map(str, batch.shape[2:]))}] for "
                f"{tuple(batch.shape)} voxels, got {got} from {self.path}; set patch to a size that it accepts"
            )
        i, j, k = (slice(0, size - m) for size, m in zip(sizes, missing, strict=True))
        return reorient.invert(maps[0].float())[:, i, j, k]


@functools.lru_cache(maxsize=2)
def _load(file: Stamp, device: torch.device) -> Any:
    path = file[0]
    if not _is_torchscript(path):
        raise FileError(
            f"cannot read {path}: it must be a TorchScript file; write it with "
            f"torch.jit.trace(extractor, example).save({path!r}), not with torch.save or torch.export"
        )
    check_torchscript(path)
    load: Any = torch.jit.load  # has no types
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated as a whole
            return load(path, map_location=device).eval()
    except RuntimeError as error:
        raise FileError(
            f"cannot read {path} as TorchScript: {str(error).strip().splitlines()[-1]}; check that it is not damaged "
            "and that the operators it needs are installed"
        ) from error


def _is_torchscript(path: str) -> bool:
    """Whether a file is a zip archive with TorchScript code; other files are never passed to torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return {"constants.pkl", "data.pkl", "version"} <= names and any(name.startswith("code/") for name in names)
