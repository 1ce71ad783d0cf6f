// The view as a whole: scenes, frames, buttons. It reads what page.py has put into its element.

class Viewer {
  constructor(root) {
    const [settings, ...data] = root.querySelectorAll("script[type]");
    this.root = root;
    this.settings = JSON.parse(settings.textContent);
    this.canvas = root.querySelector("canvas");
    this.painter = new Painter(this.canvas);
    this.camera = new OrbitCamera(this.settings.view);
    this.panels = this.settings.scenes.map((scene) => this.panel(scene, data.splice(0, scene.frames.length)));
    this.frames = Math.max(...this.panels.map((panel) => panel.frames.length));
    this.frame = 0;
    this.addControls();
    this.show(this.settings.side_by_side ? this.panels : [this.panels[0]]);
    control(this.canvas, this.camera, {
      keys: this.settings.alone ? document.body : this.canvas,
      listens: () => this.settings.alone || root.contains(document.activeElement),
      side: () => Math.min(this.canvas.clientWidth / this.shown.length, this.canvas.clientHeight),
      changed: () => this.moved(),
    });
    // Called before the browser paints: drawing at once never shows a stretched picture.
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  panel({ name, frames }, data) {
    const cloud = new Cloud(this.painter.gl);
    const sorter = new Sorter((order) => {
      cloud.setOrder(order);
      this.redraw();
    });
    const held = frames.map((header, i) => ({ header, text: data[i] }));
    return { name, cloud, sorter, loaded: null, frames: held };
  }

  /** Puts scenes beside each other. */
  show(panels) {
    this.shown = panels;
    const chosen = panels.length > 1 ? this.panels.length : this.panels.indexOf(panels[0]);
    this.sceneButtons?.forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
    if (this.panels.length > 1) this.showNames();
    this.load();
  }

  showNames() {
    const names = this.shown.map((panel) => {
      const column = element("div");
      column.append(element("span", panel.name));
      return column;
    });
    this.root.querySelector(".names").replaceChildren(...names);
  }

  /** Goes to a time; a scene of a single frame stays as it is. */
  showFrame(number) {
    this.frame = number;
    this.slider.value = number;
    this.load();
  }

  /** Brings the shown scenes of this frame to the graphics card. */
  load() {
    const details = this.shown.map((panel) => {
      const number = Math.min(this.frame, panel.frames.length - 1), frame = panel.frames[number];
      if (panel.loaded !== frame) {
        const bytes = decode(frame.text.textContent);
        panel.loaded = frame;
        panel.cloud.load(frame.header, new Uint32Array(bytes.buffer));
        panel.sorter.load(new Uint16Array(bytes.buffer), this.depthAxis(panel));
      } else {
        panel.sorter.sort(this.depthAxis(panel));
      }
      return describe(panel, number);
    });
    if (this.details) this.details.textContent = details.join(" | ");
  }

  moved() {
    for (const panel of this.shown) panel.sorter.sort(this.depthAxis(panel));
    this.redraw();
  }

  /** What one step of a packed position adds to the depth. */
  depthAxis(panel) {
    const forward = this.camera.rows()[2];
    return panel.loaded.header.box[1].map((size, i) => size * forward[i]);
  }

  /** Draws before the browser paints next, once. */
  redraw() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.draw();
    });
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas, ratio = window.devicePixelRatio;
    if (!width || !height) return;
    this.painter.resize(Math.round(width * ratio), Math.round(height * ratio));
    this.painter.draw(this.shown.map((panel) => panel.cloud), this.camera, this.settings.background);
  }

  addControls() {
    const bar = this.root.querySelector(".bar");
    this.slider = element("input");
    if (!bar) return;
    if (this.panels.length > 1) {
      const choices = this.panels.map((panel) => [panel.name, () => this.show([panel])]);
      choices.push(["side by side", () => this.show(this.panels)]);
      this.sceneButtons = buttons(choices);
      bar.append(group("scenes", this.sceneButtons));
    }
    const sides = Object.entries(this.settings.views).map(([name, side]) => [name, () => {
      this.camera.look(side);
      this.moved();
    }]);
    sides.push(["reset", () => {
      this.camera.reset();
      this.moved();
    }]);
    bar.append(group("views", buttons(sides)));
    if (this.frames > 1) bar.append(this.timeControls());
    this.details = element("span", "", "details");
    bar.append(this.details);
    const help = element("abbr", "?", "help");
    help.title = bar.dataset.help;
    bar.append(help);
  }

  timeControls() {
    Object.assign(this.slider, { type: "range", min: 0, max: this.frames - 1, value: 0 });
    this.slider.setAttribute("aria-label", "time");
    let timer = null;
    const [play] = buttons([["play", () => {
      play.textContent = timer ? "play" : "stop";
      if (timer) timer = void clearInterval(timer);
      else timer = setInterval(() => this.showFrame((this.frame + 1) % this.frames), 1000 / this.settings.fps);
    }]]);
    this.slider.addEventListener("input", () => this.showFrame(Number(this.slider.value)));
    return group("time", [play, this.slider]);
  }
}

function element(name, text = "", className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

function buttons(choices) {
  return choices.map(([text, act]) => {
    const button = element("button", text);
    button.type = "button";
    button.addEventListener("click", act);
    return button;
  });
}

function group(label, children) {
  const span = element("span", "", "group");
  span.setAttribute("role", "group");
  span.setAttribute("aria-label", label);
  span.append(...children);
  return span;
}

function describe({ name, frames }, number) {
  const { count, left_out: leftOut } = frames[number].header;
  const time = frames.length > 1 ? `frame ${number + 1} of ${frames.length}` : "";
  const amount = leftOut ? `${count} of ${count + leftOut} Gaussians` : `${count} Gaussians`;
  return [name, time, amount].filter(Boolean).join(", ");
}

function decode(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Says why there is no picture. */
function report(root, text) {
  const message = root.querySelector(".message");
  message.textContent = text;
  message.hidden = false;
}

function start(root) {
  try {
    root.querySelector("canvas").addEventListener("webglcontextlost", () =>
      report(root, "The graphics card has dropped the 3D view. Load the page again."));
    new Viewer(root);
  } catch (error) {
    report(root, error.message);
  }
}

start(document.currentScript.closest(".splat-viewer"));
