// Order of drawing. The function is complete in itself, because a worker is made from its text.

/**
 * Sorts Gaussians by depth in steps of 1/65536 of their range, the farthest first.
 *
 * @param {Uint16Array} halves - Packed Gaussians, ten values each, of which the first three are x, y, z.
 * @param {number[]} axis - What a step in x, y, z adds to the depth.
 * @returns {Uint32Array} Numbers of the Gaussians.
 */
function sortByDepth(halves, axis) {
  const count = halves.length / 10;
  const depths = new Float32Array(count);
  let near = Infinity, far = -Infinity;
  for (let i = 0, j = 0; i < count; i++, j += 10) {
    const depth = axis[0] * halves[j] + axis[1] * halves[j + 1] + axis[2] * halves[j + 2];
    depths[i] = depth;
    if (depth < near) near = depth;
    if (depth > far) far = depth;
  }
  const keys = new Uint16Array(count);
  const starts = new Uint32Array(65537);
  const steps = far > near ? 65535 / (far - near) : 0;
  for (let i = 0; i < count; i++) {
    // Rounding to 32 bits can put a depth a hair beyond the range.
    const key = Math.max(0, Math.min(65535, (far - depths[i]) * steps)) | 0;
    keys[i] = key;
    starts[key + 1]++;
  }
  for (let key = 0; key < 65536; key++) starts[key + 1] += starts[key];
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[starts[keys[i]]++] = i;
  return order;
}

/** Sorts one scene after another beside the page; in the page itself where workers are not allowed. */
class Sorter {
  /** @param {(order: Uint32Array) => void} deliver - Gets every order, the first ones at once. */
  constructor(deliver) {
    this.deliver = deliver;
    this.scene = 0;
    this.waiting = null;
    this.busy = false;
    const program = `${sortByDepth}
      let halves, scene;
      onmessage = ({ data }) => {
        if (data.halves) return void ({ halves, scene } = data);
        const order = sortByDepth(halves, data.axis);
        postMessage({ order, scene }, [order.buffer]);
      };`;
    try {
      const url = URL.createObjectURL(new Blob([program], { type: "text/javascript" }));
      this.worker = new Worker(url);
      this.worker.onmessage = ({ data }) => this.receive(data);
      this.worker.onerror = () => this.giveUpWorker();
    } catch {
      this.worker = null;
    }
  }

  /** Shows another scene, sorted at once, because an order of the scene before means nothing for it. */
  load(halves, axis) {
    this.halves = halves;
    this.scene++;
    this.waiting = null;
    this.worker?.postMessage({ halves, scene: this.scene });
    this.deliver(sortByDepth(halves, axis));
  }

  /** Asks for a new order; while one is being made, only the latest wish is kept. */
  sort(axis) {
    if (!this.worker) return this.deliver(sortByDepth(this.halves, axis));
    if (this.busy) {
      this.waiting = axis;
    } else {
      this.busy = true;
      this.worker.postMessage({ axis });
    }
  }

  receive({ order, scene }) {
    this.busy = false;
    if (scene === this.scene) this.deliver(order);
    const axis = this.waiting;
    this.waiting = null;
    if (axis) this.sort(axis);
  }

  giveUpWorker() {
    this.worker = null;
    if (this.busy || this.waiting) this.receive({ scene: -1 });
  }
}
