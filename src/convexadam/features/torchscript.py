"""Extractors that were exported as TorchScript."""

from __future__ import annotations

import functools
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch.nn import functional

from convexadam._axes import checked_count, checked_number
from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.errors import ConfigError, FileError
from convexadam.features.intensity import Intensity, centred
from convexadam.features.orientation import Turn, checked_orientation
from convexadam.features.patches import PooledSum, patches
from convexadam.features.prediction_cache import Stamp, stamp
from convexadam.geometry import Image
from convexadam.geometry.tensors import all_finite


@final
@dataclass(frozen=True, kw_only=True)
class TorchScriptFeatures:
    """Maps of an extractor that was saved with ``torch.jit.trace(...).save(path)`` or ``torch.jit.script``.

    It takes float32 ``[1, c, i, j, k]`` on the working grid and gives ``[1, f, i, j, k]``: a description of each voxel.
    It runs on the device of the images, in evaluation mode and without gradients.

    A TorchScript holds no Python code, and loading one runs no pickled code, as ``torch.load`` may. It is a program all
    the same: it can call all of torch's operators, some of which read and write files, and it may do so as it is
    loaded. Use files that you trust.

    Attributes
    ----------
    path
        Of the file.
    patch
        Size in voxels, for all axes or for each, of the boxes that the extractor sees one after the other; a smaller
        volume is continued with its edge values. ``None`` shows it the whole volume, whatever its size. Maps are
        averaged as they arise, so that no whole map of a large volume ever exists.
    overlap
        Voxels that neighbouring patches share at least. The outer quarter of it (or ``reach``, where that is more) is
        thrown away at either side, and what remains is blended: an extractor that looks no further gives what it would
        give for the whole volume. One that normalises by statistics of what it sees differs.
    normalise
        ``"range"`` maps intensities to [0, 1] as `Intensity` does, ``"deviation"`` to zero mean and unit variance over
        the voxels that have evidence, channel by channel; ``"none"`` leaves them.
    orientation
        Where the axes i, j, k of the volumes that the extractor knows point to, such as ``"RAS"``; volumes are turned
        by reordering axes, and maps back. ``None`` shows it those of the working grid, which are the fixed image's.
    reach
        Voxels around each voxel that its description depends on, where that is known.
    scale
        Factor on all channels. The regulariser is weighed against squared feature differences, so that a larger scale
        trusts the features more.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    path: str
    patch: int | tuple[int, int, int] | None = None
    overlap: int = 16
    normalise: Literal["range", "deviation", "none"] = "range"
    orientation: str | None = None
    reach: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise ConfigError(f"path is text that is not empty, but {self.path!r} came; use str(...)")
        for name in ("overlap", "reach"):
            checked_count(getattr(self, name), name)
        if self.patch is not None:
            sizes = self.patch if isinstance(self.patch, tuple) else (self.patch,) * 3
            for size in sizes:
                checked_count(size, "patch", least=1)
            if len(sizes) != 3 or not self.overlap < min(sizes):
                raise ConfigError(
                    f"patch is one size or three, larger than overlap, but {self.patch!r} came, and {self.overlap} for "
                    "the overlap"
                )
            if self.reach and not 2 * self.reach < self.overlap:
                raise ConfigError(
                    f"overlap is more than twice the reach of {self.reach} voxels, but {self.overlap} came"
                )
        if self.normalise not in ("range", "deviation", "none"):
            raise ConfigError(f"normalise is 'range', 'deviation' or 'none', but {self.normalise!r} came")
        if self.orientation is not None:
            checked_orientation(self.orientation)
        checked_number(self.scale, "scale", above=True)

    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return ``[f, i, j, k]``, float32.

        Raises
        ------
        FileError
            If the file is no TorchScript.
        ConfigError
            If the extractor fails, or returns anything but finite numbers for each voxel.
        """
        return self._maps(image, ((1, 1, 1),), weight, None)[0]

    def pooled(
        self, image: Image, spacings: tuple[Triple, ...], /, *, weight: Volume | None = None
    ) -> tuple[Pooled, ...]:
        """Return ``[f, i // si, j // sj, k // sk]`` for each spacing; raises as calling does."""
        return self._maps(image, spacings, weight, weight)

    @torch.no_grad()
    def _maps(
        self, image: Image, spacings: tuple[Triple, ...], weight: Volume | None, evidence: Volume | None
    ) -> tuple[Pooled, ...]:
        """Average over blocks, weighted by ``evidence``; ``weight`` is that of the intensities' statistics."""
        model = _loaded(stamp(Path(self.path)), image.data.device)
        turn = Turn() if self.orientation is None else Turn.towards(image.grid, self.orientation)
        data, shape = self._normalised(image, weight), image.grid.shape
        sizes = self._sizes(shape, turn)
        margin = max(self.reach, self.overlap // 4)
        sums = [PooledSum(shape, spacing) for spacing in spacings]
        for patch in patches(shape, sizes, overlap=self.overlap, margin=margin, device=data.device):
            found = self._described(model, patch.of(data), sizes, turn) * patch.weight
            if evidence is not None:
                found *= patch.of(evidence[None])
            for each in sums:
                each.add(found, patch.start)
        maps = tuple(each.averages(evidence).mul_(self.scale) for each in sums)
        if not all(all_finite(each) for each in maps):
            raise ConfigError(
                f"the extractor {self.path} returned NaN or Inf; does normalise={self.normalise!r} fit it?"
            )
        return maps

    def _sizes(self, shape: Triple, turn: Turn) -> Triple:
        """Size of the patches along the axes of the volume."""
        if self.patch is None:
            return shape
        return turn.axes_of(self.patch if isinstance(self.patch, tuple) else (self.patch,) * 3)

    def _normalised(self, image: Image, weight: Volume | None) -> Channels:
        if self.normalise == "none":
            return image.data.float()
        if self.normalise == "range":
            return Intensity()(image, weight=weight)
        data = centred(image.data)
        for channel in data:
            seen = channel if weight is None or not bool((weight > 0).any()) else channel[weight > 0]
            deviation = seen.std(correction=0)
            channel.sub_(seen.mean()).div_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))
        return data

    def _described(self, model: Any, data: Pooled, sizes: Triple, turn: Turn) -> Pooled:
        """Run the extractor on one box of voxels, continued to ``sizes`` where it is smaller."""
        missing = [size - n for size, n in zip(sizes, data.shape[1:], strict=True)]
        if any(missing):
            data = functional.pad(data[None], (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")[0]
        seen = turn(data)[None].contiguous()
        try:
            found = model(seen)
        except RuntimeError as error:
            if "memory" in str(error):  # of whichever device; see register
                raise
            raise ConfigError(
                f"the extractor {self.path} fails for {tuple(seen.shape)} voxels: {str(error).strip().splitlines()[-1]}"
            ) from error
        if (
            not isinstance(found, torch.Tensor)
            or found.ndim != 5
            or found.shape[2:] != seen.shape[2:]
            or len(found) != 1
        ):
            came = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise ConfigError(
                f"an extractor returns [1, f, {', '.join(map(str, seen.shape[2:]))}] for {tuple(seen.shape)}, but "
                f"{came} came from {self.path}; set patch, where it needs certain sizes"
            )
        i, j, k = (slice(0, size - m) for size, m in zip(sizes, missing, strict=True))
        return turn.back(found[0].float())[:, i, j, k]


@functools.lru_cache(maxsize=2)
def _loaded(file: Stamp, device: torch.device) -> Any:
    path = file[0]
    if not _is_torchscript(path):
        raise FileError(
            f"{path} is no TorchScript; needed is what torch.jit.trace(extractor, example).save({path!r}) writes, not "
            "weights alone, and not what torch.save or torch.export write"
        )
    load: Any = torch.jit.load  # has no types
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole
            return load(path, map_location=device).eval()
    except RuntimeError as error:
        raise FileError(
            f"{path} cannot be loaded as TorchScript ({str(error).strip().splitlines()[-1]}); is it damaged, or does "
            "it need operators that are not installed here?"
        ) from error


def _is_torchscript(path: str) -> bool:
    """Whether a file is a zip archive with code in it; others never reach torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return {"constants.pkl", "data.pkl", "version"} <= inside and any(name.startswith("code/") for name in inside)
