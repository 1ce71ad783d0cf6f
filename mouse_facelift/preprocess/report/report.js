// Turns the drawing of the rig. Without this script the page is complete; only the rig stands still.
for (const svg of document.querySelectorAll("svg.rig")) {
  const [width, height] = svg.getAttribute("viewBox").split(" ").slice(2).map(Number);
  const start = svg.dataset.view.split(" ").map(Number);
  const radius = Number(svg.dataset.radius), distance = Number(svg.dataset.distance);
  const parts = [...svg.querySelectorAll("[data-points]")].map((element) => ({
    element,
    lines: element.dataset.points.split("|").map((line) => line.split(" ").map((point) => point.split(",").map(Number))),
  }));
  let [yaw, pitch] = start;

  const project = ([px, py, pz]) => {
    const [x, y, z] = [px / radius, py / radius, pz / radius];
    const across = Math.cos(yaw) * x - Math.sin(yaw) * y, away = Math.sin(yaw) * x + Math.cos(yaw) * y;
    const up = Math.cos(pitch) * z + Math.sin(pitch) * away, depth = Math.cos(pitch) * away - Math.sin(pitch) * z;
    const fitting = Math.min(width, height / (Math.abs(Math.sin(pitch)) + 0.35 * Math.cos(pitch)));
    const zoom = 0.53 * fitting * (distance - 0.5) / (distance + depth);
    return [(width / 2 + zoom * across).toFixed(1), (height / 2 - zoom * up).toFixed(1)];
  };

  const draw = () => {
    for (const { element, lines } of parts) {
      if (element.tagName === "text") {
        const [x, y] = project(lines[0][0]);
        element.setAttribute("x", x);
        element.setAttribute("y", y);
      } else {
        element.setAttribute("d", lines.map((line) => "M" + line.map(project).join("L")).join(""));
      }
    }
  };
  const turn = (dx, dy) => {
    yaw -= dx;
    pitch = Math.min(Math.PI / 2, Math.max(-0.3, pitch + dy));
    draw();
  };
  const look = (side) => {
    [yaw, pitch] = side;
    draw();
  };

  svg.addEventListener("pointerdown", (event) => svg.setPointerCapture(event.pointerId));
  svg.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) turn(event.movementX * 0.008, event.movementY * 0.008);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (step) {
      turn(...step);
      event.preventDefault();
    }
  });
  const buttons = document.createElement("div");
  buttons.className = "sides";
  for (const [name, side] of [["reset", start], ["from above", [0, Math.PI / 2]], ["from the side", [start[0], 0]]]) {
    const button = document.createElement("button");
    button.textContent = name;
    button.addEventListener("click", () => look(side));
    buttons.append(button);
  }
  buttons.prepend("Drag or use the arrow keys to turn. ");
  svg.after(buttons);
}
