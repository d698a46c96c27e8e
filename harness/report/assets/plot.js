// Axes, marks and figure boxes. Everything is drawn with attributes, so that a downloaded SVG needs no style sheet.

const FONT = "system-ui, Liberation Sans, DejaVu Sans, Arial, sans-serif";

function ticksOf(low, high, log, wanted) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
    }
    const inside = found.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    const powers = inside.filter((tick) => Math.abs(Math.log10(tick) - Math.round(Math.log10(tick))) < 1e-9);
    return inside.length > wanted && powers.length > 1 ? powers : inside;
  }
  const step = 10 ** Math.floor(Math.log10((high - low) / wanted));
  const nice = [1, 2, 5, 10].map((digit) => digit * step).find((size) => (high - low) / size <= wanted);
  const ticks = [];
  for (let i = Math.ceil(low / nice - 1e-9); i * nice <= high + nice * 1e-9; i++) ticks.push(Number((i * nice).toPrecision(12)));
  return ticks;
}

// The range of some values with a little room around, on a linear or logarithmic axis.
function domainOf(values, log) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (!(low <= high)) return [0, 1];
  if (log) {
    const room = Math.max((high / low) ** 0.06, 1.05);
    return [low / room, high * room];
  }
  const room = (high - low) * 0.06 || Math.abs(high) * 0.05 || 0.05;
  return [low - room, high + room];
}

function marker(shape, x, y, r, colour) {
  const points = (list) => list.map(([dx, dy]) => `${(x + dx * r).toFixed(1)},${(y + dy * r).toFixed(1)}`).join(" ");
  const polygon = (list) => s("polygon", { points: points(list), fill: colour, stroke: "#fff", "stroke-width": 0.7 });
  const strokes = (...lines) => s("path", {
    d: lines.map((line) => `M${points([line[0]])} L${points([line[1]])}`).join(" "), stroke: colour, "stroke-width": 2.4, fill: "none",
  });
  switch (shape) {
    case "square": return polygon([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]);
    case "triangle": return polygon([[0, -1.15], [1.05, 0.8], [-1.05, 0.8]]);
    case "down": return polygon([[0, 1.15], [1.05, -0.8], [-1.05, -0.8]]);
    case "diamond": return polygon([[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]]);
    case "cross": return strokes([[-0.9, -0.9], [0.9, 0.9]], [[-0.9, 0.9], [0.9, -0.9]]);
    case "plus": return strokes([[-1.2, 0], [1.2, 0]], [[0, -1.2], [0, 1.2]]);
    case "star": return strokes([[-1.1, 0], [1.1, 0]], [[-0.6, -1], [0.6, 1]], [[-0.6, 1], [0.6, -1]]);
    default: return s("circle", { cx: x, cy: y, r, fill: colour, stroke: "#fff", "stroke-width": 0.7 });
  }
}

function label(x, y, text, more = {}) {
  return s("text", { x, y, "font-family": FONT, "font-size": 12, fill: "#1b1f24", ...more }, text);
}

const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

// An empty plot with axes. `x` and `y` are {title, domain, log, names}; returns the drawing and its coordinates. Where
// there are names instead of numbers, the first is in the middle between 0 and 1, the next between 1 and 2.
function axes(width, height, x, y, { left = 64, bottom = 46, top = 12, right = 14 } = {}) {
  const svg = s("svg", { xmlns: SVG, viewBox: `0 0 ${width} ${height}`, width, height, role: "group" },
    s("rect", { width, height, fill: "#fff" }));
  const map = (axis, from, to) => {
    const position = axis.log ? Math.log : Number;
    const [low, high] = axis.domain.map((value) => position(value));
    return (value) => from + ((position(value) - low) / (high - low || 1)) * (to - from);
  };
  const X = map(x, left, width - right);
  const Y = map(y, height - bottom, top);
  const room = width - left - right;
  const ticks = (axis, most, space) => (axis.names ? axis.names.map((name, i) => [i + 0.5, cut(name, Math.max(3, Math.floor(space / 6.2)))])
    : ticksOf(...axis.domain, axis.log, Math.max(2, Math.floor(most))).map((tick) => [tick, short(tick)]));
  for (const [tick, text] of ticks(x, room / 70, room / (x.names?.length || 1))) {
    svg.append(s("path", { d: `M${X(tick)} ${top} V${height - bottom}`, stroke: "#e6eaef" }),
      label(X(tick), height - bottom + 16, text, { "text-anchor": "middle", "font-size": 11 }));
  }
  for (const [tick, text] of ticks(y, (height - top - bottom) / 40, left - 10)) {
    svg.append(s("path", { d: `M${left} ${Y(tick)} H${width - right}`, stroke: "#e6eaef" }),
      label(left - 6, Y(tick) + 4, text, { "text-anchor": "end", "font-size": 11 }));
  }
  svg.append(s("path", { d: `M${left} ${top} V${height - bottom} H${width - right}`, stroke: "#57606a", fill: "none" }),
    label(left + room / 2, height - 8, x.title, { "text-anchor": "middle" }),
    label(14, (top + height - bottom) / 2, y.title, { "text-anchor": "middle", transform: `rotate(-90 14 ${(top + height - bottom) / 2})` }));
  return { svg, X, Y, width, height, left, right, top, bottom };
}

// Names with their marks below a plot; makes the drawing as much taller as they need.
function legend(plot, names, look, line = false) {
  const { svg, width } = plot;
  let [x, y] = [12, plot.height + 8];
  for (const name of names) {
    const text = cut(name, Math.floor((width - 50) / 6.4));
    const space = 36 + text.length * 6.4;
    if (x > 12 && x + space > width) [x, y] = [12, y + 20];
    const { colour, shape, dash } = look.get(name);
    if (line) svg.append(s("path", { d: `M${x} ${y} h18`, stroke: colour, "stroke-width": 2.4, "stroke-dasharray": dash }));
    else svg.append(marker(shape, x + 9, y, 5.5, colour));
    svg.append(label(x + 24, y + 4, text));
    x += space;
  }
  plot.height = y + 14;
  svg.setAttribute("height", plot.height);
  svg.setAttribute("viewBox", `0 0 ${width} ${plot.height}`);
}

// Marks that can be reached with the Tab key (the first) and the arrow keys (the others), and opened with Enter.
function reachable(marks) {
  marks.forEach(({ element, text, open }, i) => {
    element.append(s("title", {}, text));
    fill(element, {
      role: "button", tabindex: i ? -1 : 0, "aria-label": text, onclick: open,
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (event.key === "Enter" || event.key === " ") open();
        else if (step) marks[(i + step + marks.length) % marks.length].element.focus();
        else return;
        event.preventDefault();
      },
    }, []);
  });
}

async function toPng(svg, scale = 3) {
  const text = new XMLSerializer().serializeToString(svg);
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  await image.decode();
  const canvas = h("canvas", { width: svg.width.baseVal.value * scale, height: svg.height.baseVal.value * scale });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// A figure that draws itself anew when its container changes its width, with buttons that save it.
function figureBox(id, caption, draw) {
  const container = h("div", {});
  const save = (kind) => async () => {
    const svg = container.querySelector("svg");
    if (!svg) return;
    const blob = kind === "svg"
      ? new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" }) : await toPng(svg);
    download(`${id}.${kind}`, blob);
  };
  const downloads = h("div", { class: "downloads" },
    h("button", { type: "button", onclick: save("svg"), "aria-label": `Save the figure ${id} as SVG` }, "SVG"),
    h("button", { type: "button", onclick: save("png"), "aria-label": `Save the figure ${id} as PNG` }, "PNG"));
  const note = h("figcaption", {}, caption);
  const figure = h("figure", { id }, container, note, downloads);
  let drawn = 0;
  figure.redraw = () => {
    drawn = Math.max(300, Math.min(Math.floor(figure.clientWidth) || 640, 760));
    const result = draw(drawn);
    container.replaceChildren(result || h("p", { class: "soft" }, "Nothing to draw for this choice."));
    downloads.hidden = !result;
  };
  new ResizeObserver(() => {
    const width = Math.max(300, Math.min(Math.floor(figure.clientWidth), 760));
    if (figure.clientWidth && Math.abs(width - drawn) > 8) figure.redraw();
  }).observe(figure);
  return figure;
}
