"""Pinhole cameras (OpenCV, half-pixel centres) and the only transformations that keep image and camera true.

The four legal operations (docs/architecture.md): a 2D affine on pixels, a world similarity, re-aiming about
the camera's own centre, and nothing else. Each returns the new camera, and the homography of its pixels
where they move.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import CalibrationError

Array = NDArray[np.float64]

FACELIFT_DISTANCE = 2.7
"""Of FaceLift's cameras from the animal, model units."""
FACELIFT_FOCAL = 548.9937744 / 512
"""Their focal length in picture sides: 50 degrees of field of view."""

ROTATION_TOLERANCE = 1e-4
"""Largest entry of `R R^T - I` accepted: five decimals pass, a sheared matrix does not."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """World change `X' = scale * rotation @ (X - center)`, the same for all cameras of a sample.

    Attributes:
        scale: Model units per world unit, > 0.
        rotation: Proper rotation Q. [3, 3]
        center: The world point that becomes the origin. [3]
    """

    scale: float
    rotation: Array
    center: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "rotation", _rotation(self.rotation, "similarity"))
        object.__setattr__(self, "center", _array(self.center, (3,), "similarity center"))
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise CalibrationError(f"similarity scale is {self.scale}, expected a positive number.")

    @classmethod
    def from_world_from_model(cls, matrix: ArrayLike) -> "Similarity":
        """The similarity of this `world_from_model`. [4, 4]"""
        matrix = np.asarray(matrix, float)
        scale = similarity_scale(matrix)
        return cls(1 / scale, matrix[:3, :3].T / scale, matrix[:3, 3])

    def apply(self, points: ArrayLike) -> Array:
        """Take world points to model points. [..., 3] -> [..., 3]"""
        return self.scale * (np.asarray(points, float) - self.center) @ self.rotation.T

    @property
    def inverse(self) -> "Similarity":
        """The way back."""
        return Similarity(1 / self.scale, self.rotation.T, -self.scale * self.rotation @ self.center)

    @property
    def model_from_world(self) -> Array:
        """The similarity as a matrix. [4, 4]"""
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * self.rotation
        matrix[:3, 3] = -self.scale * self.rotation @ self.center
        return matrix

    @property
    def world_from_model(self) -> Array:
        """The inverse as a matrix. [4, 4]"""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation.T / self.scale
        matrix[:3, 3] = self.center
        return matrix


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera: `x_cam = R X + t`, `pixel ~ K x_cam`; the first pixel's centre is at (0.5, 0.5).

    Attributes:
        K: Intrinsics in pixels. [3, 3]
        w2c: World-to-camera, rigid. [4, 4]
        width: Image width in pixels.
        height: Image height in pixels.

    Raises:
        CalibrationError: K or w2c is not finite, not of the right form, or R is not a proper rotation.
    """

    K: Array
    w2c: Array
    width: int
    height: int

    def __post_init__(self) -> None:
        K = _array(self.K, (3, 3), "K")
        w2c = _array(self.w2c, (4, 4), "w2c")
        if abs(K[1, 0]) + abs(K[2, 0]) + abs(K[2, 1]) > 0 or abs(K[2, 2] - 1) > 1e-9:
            raise CalibrationError(
                f"K is {K.tolist()}, expected upper-triangular with last row 0 0 1. Is it transposed?"
            )
        if K[0, 0] <= 0 or K[1, 1] <= 0:
            raise CalibrationError(f"focal lengths are {K[0, 0]}, {K[1, 1]}, expected positive pixels.")
        if not np.allclose(w2c[3], (0, 0, 0, 1), atol=1e-9):
            raise CalibrationError(f"last row of w2c is {w2c[3].tolist()}, expected 0 0 0 1.")
        _rotation(w2c[:3, :3], "w2c")
        if self.width < 1 or self.height < 1:
            raise CalibrationError(f"image size is {self.width}x{self.height}, expected at least 1x1.")
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "w2c", w2c)

    @classmethod
    def from_rt(cls, K: ArrayLike, R: ArrayLike, t: ArrayLike, width: int, height: int) -> "Camera":
        """Build from a rotation [3, 3] and a translation of three numbers in any shape."""
        w2c = np.eye(4)
        w2c[:3, :3] = _array(R, (3, 3), "R")
        w2c[:3, 3] = _array(np.asarray(t, float).reshape(-1), (3,), "T")
        return cls(np.asarray(K, float), w2c, width, height)

    @classmethod
    def look_at(
        cls,
        center: ArrayLike,
        target: ArrayLike,
        focal: float,
        size: int | tuple[int, int],
        up: ArrayLike = (0.0, 0.0, 1.0),
    ) -> "Camera":
        """A camera at `center` [3] aimed at `target` [3]; `size` is one side, or (width, height)."""
        width, height = (size, size) if isinstance(size, int) else size
        center = _array(center, (3,), "camera center")
        R = look_at_rotation(np.asarray(target, float) - center, up)
        K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        return cls.from_rt(K, R, -R @ center, width, height)

    @property
    def R(self) -> Array:
        """World-to-camera rotation. [3, 3]"""
        return self.w2c[:3, :3]

    @property
    def t(self) -> Array:
        """World-to-camera translation, world units. [3]"""
        return self.w2c[:3, 3]

    @cached_property
    def center(self) -> Array:
        """Camera centre in world coordinates. [3]"""
        return -self.R.T @ self.t

    @cached_property
    def c2w(self) -> Array:
        """Camera-to-world, the exact rigid inverse of `w2c`. [4, 4]"""
        matrix = np.eye(4)
        matrix[:3, :3] = self.R.T
        matrix[:3, 3] = self.center
        return matrix

    @property
    def azimuth_deg(self) -> float:
        """Where the camera stands about the world's z axis, counter-clockwise from +x, in [0, 360)."""
        x, y, _ = self.center
        # Twice, because a tiny negative angle is rounded to 360 itself.
        return float(np.degrees(np.arctan2(y, x)) % 360 % 360)

    def project(self, points: ArrayLike) -> tuple[Array, Array]:
        """Project world points.

        Args:
            points: World coordinates. [..., 3]

        Returns:
            Pixel positions [..., 2] and depths along the optical axis in world units [...].
            Points with depth <= 0 are behind the camera; their pixel positions mean nothing.
        """
        in_camera = np.asarray(points, float) @ self.R.T + self.t
        depth = in_camera[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            homogeneous = in_camera @ self.K.T
            pixels = homogeneous[..., :2] / homogeneous[..., 2:]
        return pixels, depth

    def affine(self, A: ArrayLike, b: ArrayLike, width: int, height: int) -> tuple["Camera", Array]:
        """Operation (i): pixels move as `u' = A u + b`, so `K' = [[A, b], [0, 1]] K`.

        `A` must be upper-triangular with a positive diagonal (scale, crop, skew): anything else is a
        rotation of the camera, which is `reaim`.

        Returns:
            The camera of the moved pixels, and the homography old pixel -> new pixel. [3, 3]
        """
        H = np.eye(3)
        H[:2, :2] = _array(A, (2, 2), "A")
        H[:2, 2] = _array(b, (2,), "b")
        return Camera(H @ self.K, self.w2c, width, height), H

    def resized(self, width: int, height: int) -> tuple["Camera", Array]:
        """The camera of the image resized to `width` x `height` (half-pixel centres, no cropping)."""
        return self.affine(np.diag([width / self.width, height / self.height]), (0, 0), width, height)

    def similarity(self, change: Similarity) -> "Camera":
        """Operation (ii): the camera in the changed world, `R' = R Q^T`, `t' = s (t + R c)`; K untouched."""
        w2c = np.eye(4)
        w2c[:3, :3] = self.R @ change.rotation.T
        w2c[:3, 3] = change.scale * (self.t + self.R @ change.center)
        return Camera(self.K, w2c, self.width, self.height)

    def reaim(self, K: ArrayLike, R: ArrayLike, width: int, height: int) -> tuple["Camera", Array]:
        """Operation (iii): rotate and zoom about the camera's own centre, `H = K' R' R^T K^-1`, exact.

        Args:
            K: Intrinsics of the new camera. [3, 3]
            R: Its world-to-camera rotation. [3, 3]
            width: Its image width in pixels.
            height: Its image height in pixels.

        Returns:
            The new camera, and the homography old pixel -> new pixel. [3, 3]
        """
        R = _array(R, (3, 3), "R")
        camera = Camera.from_rt(K, R, -R @ self.center, width, height)
        return camera, camera.K @ camera.R @ self.R.T @ np.linalg.inv(self.K)


def similarity_scale(matrix: ArrayLike) -> float:
    """How many times as long a similarity makes everything. [4, 4]"""
    return float(np.cbrt(np.linalg.det(np.asarray(matrix, float)[:3, :3])))


def direction(azimuth: ArrayLike, elevation: ArrayLike) -> Array:
    """Unit vectors to sides, Z up.

    Args:
        azimuth: Counter-clockwise from +x seen from above, radians. [...]
        elevation: Above the xy plane, radians; may broadcast. [...]

    Returns:
        [..., 3]
    """
    flat = np.cos(elevation)
    parts = flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)
    return np.stack(np.broadcast_arrays(*parts), axis=-1)


def look_at_rotation(forward: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> Array:
    """World-to-camera rotation of a camera that looks along `forward` with `up` towards the image's top.

    Raises:
        CalibrationError: `forward` is zero or parallel to `up`.
    """
    z: Array = np.asarray(forward, float)
    x = np.cross(z, np.asarray(up, float))
    if np.linalg.norm(x) <= 1e-9 * np.linalg.norm(z):
        raise CalibrationError(
            f"cannot look along {z.tolist()} with up {np.asarray(up).tolist()}: they are parallel."
        )
    z = z / np.linalg.norm(z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def transform_pixels(H: ArrayLike, pixels: ArrayLike) -> Array:
    """Apply a homography [3, 3] to pixel positions [..., 2]."""
    H = np.asarray(H, float)
    pixels = np.asarray(pixels, float)
    moved = pixels @ H[:, :2].T + H[:, 2]
    return moved[..., :2] / moved[..., 2:]


def _array(value: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    array = np.asarray(value, float)
    if array.shape != shape:
        raise CalibrationError(f"{name} has shape {array.shape}, expected {shape}.")
    if not np.isfinite(array).all():
        raise CalibrationError(f"{name} holds NaN or infinity: {array.tolist()}.")
    return array


def _rotation(value: ArrayLike, name: str) -> Array:
    R = _array(value, (3, 3), f"rotation of {name}")
    error = float(np.abs(R @ R.T - np.eye(3)).max())
    if error > ROTATION_TOLERANCE:
        raise CalibrationError(
            f"rotation of {name} is not orthonormal: R R^T differs from the identity by {error:.3g}, "
            f"expected at most {ROTATION_TOLERANCE:g}."
        )
    determinant = float(np.linalg.det(R))
    if determinant < 0:
        raise CalibrationError(
            f"rotation of {name} has determinant {determinant:.3f}, expected +1: it is a mirror image."
        )
    return R
