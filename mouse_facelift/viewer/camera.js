// The camera that goes around the animal, and the hands that move it. Z is up; angles are in degrees.

const RADIANS = Math.PI / 180;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Looks at a target from an azimuth (counter-clockwise from +x), an elevation and a distance. */
class OrbitCamera {
  /** @param start - azimuth, elevation, distance, focal (in sides of the picture) and target [x, y, z]. */
  constructor(start) {
    this.start = start;
    this.reset();
  }

  reset() {
    Object.assign(this, this.start, { target: [...this.start.target] });
  }

  /** Goes to a side of the animal and keeps the distance. */
  look([azimuth, elevation]) {
    Object.assign(this, { azimuth, elevation, target: [...this.start.target] });
  }

  turn(azimuth, elevation) {
    this.azimuth = (this.azimuth + azimuth + 360) % 360;
    this.elevation = clamp(this.elevation + elevation, -90, 90);
  }

  zoom(factor) {
    this.distance = clamp(this.distance * factor, this.start.distance / 10, this.start.distance * 10);
  }

  /** Moves the target across the picture, by shares of its shorter side. */
  pan(right, down) {
    const [x, y] = this.rows(), step = this.distance / this.focal;
    this.target = this.target.map((value, i) => value - step * (right * x[i] + down * y[i]));
  }

  /** Right, down and forward in the world: the rows of the world-to-camera rotation. */
  rows() {
    const a = this.azimuth * RADIANS, e = this.elevation * RADIANS;
    const out = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
    const down = [Math.sin(e) * Math.cos(a), Math.sin(e) * Math.sin(a), -Math.cos(e)];
    return [[-Math.sin(a), Math.cos(a), 0], down, out.map((value) => -value)];
  }

  /** Where the camera stands. */
  center() {
    const forward = this.rows()[2];
    return this.target.map((value, i) => value - this.distance * forward[i]);
  }
}

/**
 * Lets mouse, touch and keys on an element move the camera.
 *
 * @param page - keys: the element whose keys count; listens: whether the wheel belongs to the view now;
 *   side: shorter side of the picture in CSS pixels; changed: what to call after each movement.
 */
function control(element, camera, { keys, listens, side, changed }) {
  const fingers = new Map();

  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    element.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
  element.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY], dx = now[0] - before[0], dy = now[1] - before[1];
    fingers.set(event.pointerId, now);
    if (fingers.size === 2) {
      // Each finger does half of what both do together.
      const [, other] = [...fingers].find(([id]) => id !== event.pointerId);
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) + 1;
      camera.zoom(apart(before) / apart(now));
      camera.pan(dx / 2 / side(), dy / 2 / side());
    } else if (event.shiftKey || event.buttons & 2) {
      camera.pan(dx / side(), dy / side());
    } else {
      camera.turn(-0.4 * dx, 0.4 * dy);
    }
    changed();
  });
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener("dblclick", () => {
    camera.reset();
    changed();
  });
  element.addEventListener("wheel", (event) => {
    // A reader who scrolls past the view must not be caught in it: it has to be clicked first.
    if (!listens()) return;
    event.preventDefault();
    camera.zoom(Math.exp(clamp(event.deltaY * (event.deltaMode ? 30 : 1), -200, 200) * 0.0015));
    changed();
  }, { passive: false });
  const moves = {
    ArrowLeft: () => camera.turn(-5, 0),
    ArrowRight: () => camera.turn(5, 0),
    ArrowUp: () => camera.turn(0, 5),
    ArrowDown: () => camera.turn(0, -5),
    "+": () => camera.zoom(0.9),
    "-": () => camera.zoom(1 / 0.9),
    Home: () => camera.reset(),
  };
  keys.addEventListener("keydown", (event) => {
    // The slider of time has its own use for arrow keys.
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
    if (!moves[event.key]) return;
    moves[event.key]();
    event.preventDefault();
    changed();
  });
}
