// The figures of the report. Each takes the state and a width, and returns a drawing or null.

const CHEAPER_MORE = new Set(["sparsity"]);
const MOST_LINES = 60;
const MOST_BARS = 150; // more marks than that get no intervals, and are drawn small

const known = (rows, ...metrics) => rows.filter((row) => metrics.every((metric) => row.cells[metric]?.mean !== null && row.cells[metric]?.mean !== undefined));

// Which way is better on an axis: 1 for more, -1 for less. Of a cost that ranks nothing, less is cheaper.
function direction(data, metric) {
  return CHEAPER_MORE.has(metric) ? 1 : data.metrics[metric].better || (data.metrics[metric].cost ? -1 : 1);
}

// The rows that no other row beats in both; ordered along the cost axis.
function paretoFront(data, rows, cost, quality) {
  const [c, q] = [direction(data, cost), direction(data, quality)];
  const ordered = [...rows].sort((a, b) => c * (b.cells[cost].mean - a.cells[cost].mean) || q * (b.cells[quality].mean - a.cells[quality].mean));
  let best = -Infinity;
  return ordered.filter((row) => {
    const value = q * row.cells[quality].mean;
    if (value <= best) return false;
    best = value;
    return true;
  });
}

const wide = (values) => Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 20;

function drawTradeOff(state, width, cost, quality, joined) {
  const { data } = state;
  const rows = known(state.rows, cost, quality);
  if (!rows.length || !cost) return null;
  const xs = rows.map((row) => row.cells[cost].mean);
  const log = wide(xs);
  const ends = rows.flatMap((row) => {
    const { mean, half } = row.cells[quality];
    return [mean - (half ?? 0), mean + (half ?? 0)];
  });
  const arrow = (metric) => `${metric}${log && metric === cost ? ", logarithmic" : ""}${direction(data, metric) > 0 ? " (more is better)" : " (less is better)"}`;
  const plot = axes(width, Math.min(420, Math.max(280, width * 0.62)),
    { title: arrow(cost), domain: domainOf(xs, log), log }, { title: arrow(quality), domain: domainOf(ends, false) });
  const { svg, X, Y } = plot;
  const front = paretoFront(data, rows, cost, quality);
  const line = s("path", {
    class: "front", d: front.map((row, i) => `${i ? "L" : "M"}${X(row.cells[cost].mean)} ${Y(row.cells[quality].mean)}`).join(" "),
    fill: "none", stroke: "#57606a", "stroke-width": 1.6, "stroke-dasharray": "5 4", "pointer-events": "none",
  });
  if (joined) {
    for (const [name, unordered] of groupBy(rows, (row) => row.method)) {
      const members = [...unordered].sort((a, b) => a.cells[cost].mean - b.cells[cost].mean);
      svg.append(s("path", { d: members.map((row, i) => `${i ? "L" : "M"}${X(row.cells[cost].mean)} ${Y(row.cells[quality].mean)}`).join(" "),
        fill: "none", stroke: state.look.get(name).colour, "stroke-width": 1.2 }));
    }
  }
  const marks = rows.map((row) => {
    const [x, y] = [X(row.cells[cost].mean), Y(row.cells[quality].mean)];
    const { colour, shape } = state.look.get(row.method);
    const { mean, half } = row.cells[quality];
    if (half > 0 && rows.length <= MOST_BARS) svg.append(s("path", { d: `M${x} ${Y(mean - half)} V${Y(mean + half)}`, stroke: colour, "stroke-width": 1.2, opacity: 0.6 }));
    const element = s("g", { class: "mark" }, marker(shape, x, y, rows.length <= MOST_BARS ? 6 : 3.5, colour));
    const onFront = front.includes(row) ? ", on the Pareto front" : "";
    return { element, open: () => state.open(row), text: `${rowName(row)}: ${quality} ${number(mean, half ?? 0)}, ${cost} ${number(row.cells[cost].mean)}${onFront}` };
  });
  svg.append(...marks.map((mark) => mark.element), line);
  reachable(marks);
  legend(plot, [...new Set(rows.map((row) => row.method))].sort(), state.look);
  return svg;
}

// Networks of queries against networks of the gallery, for one config. Values are written out, colour only helps.
function matrixGroups(state) {
  const groups = groupBy(state.data.rows.filter((row) => row.contest === state.contest && row.gallery_variant), (row) => row.group);
  return [...groups].filter(([, rows]) => new Set(rows.map((row) => row.variant)).size > 1 && new Set(rows.map((row) => row.gallery_variant)).size > 1);
}

const byNumberInName = (a, b) => a.localeCompare(b, "en", { numeric: true });

function drawMatrix(state, width, rows, metric) {
  const cells = known(rows, metric);
  if (!cells.length) return null;
  const queries = [...new Set(cells.map((row) => row.variant))].sort(byNumberInName);
  const galleries = [...new Set(cells.map((row) => row.gallery_variant))].sort(byNumberInName);
  const means = cells.map((row) => row.cells[metric].mean);
  const [low, high] = [Math.min(...means), Math.max(...means)];
  const start = commonStart([...queries, ...galleries]);
  const rest = (name) => name.slice(start.length).trim();
  const longest = Math.max(...queries.map((name) => cut(rest(name), 16).length));
  const [left, top] = [30 + longest * 6.6, 30];
  const [cw, ch] = [(width - left - 10) / galleries.length, Math.min(48, Math.max(26, (width * 0.6) / queries.length))];
  const height = top + ch * queries.length + 52;
  const svg = s("svg", { xmlns: SVG, viewBox: `0 0 ${width} ${height}`, width, height, role: "group" }, s("rect", { width, height, fill: "#fff" }));
  const marks = cells.map((row) => {
    const { mean, half } = row.cells[metric];
    const share = high > low ? (mean - low) / (high - low) : 0.5;
    const [x, y] = [left + galleries.indexOf(row.gallery_variant) * cw, top + queries.indexOf(row.variant) * ch];
    const dark = share > 0.55;
    const blend = (a, b) => Math.round(a + (b - a) * share);
    const text = number(mean).replace(/^0\./, ".");
    const element = s("g", { class: "mark" },
      s("rect", { x, y, width: cw - 1.5, height: ch - 1.5, fill: `rgb(${blend(247, 8)},${blend(251, 48)},${blend(255, 107)})`, stroke: row.variant === row.gallery_variant ? "#d55e00" : "none", "stroke-width": 2 }),
      label(x + cw / 2, y + ch / 2 + 4, text, { "text-anchor": "middle", fill: dark ? "#fff" : "#1b1f24", "font-size": cw < 44 ? 10 : 12, "pointer-events": "none" }));
    return { element, open: () => state.open(row), text: `queries by ${row.variant}, gallery by ${row.gallery_variant}: ${metric} ${number(mean, half ?? 0)}` };
  });
  svg.append(...marks.map((mark) => mark.element));
  reachable(marks);
  queries.forEach((name, i) => svg.append(label(left - 6, top + i * ch + ch / 2 + 4, cut(rest(name), 16), { "text-anchor": "end" })));
  galleries.forEach((name, i) => svg.append(label(left + i * cw + cw / 2, height - 34, cut(rest(name), Math.max(3, Math.floor(cw / 6.6))), { "text-anchor": "middle" })));
  svg.append(label(left + (width - left) / 2, height - 12, `gallery embedded by ${start}`, { "text-anchor": "middle" }),
    label(8, 16, `${metric}; rows: queries embedded by ${start}; framed: the same on both sides`, { "font-size": 11 }));
  return svg;
}

function drawSeeds(state, width, metric) {
  const rows = known(state.shown, metric).slice(0, MOST_LINES);
  if (!rows.length) return null;
  const values = rows.flatMap((row) => [...row.cells[metric].values, row.cells[metric].mean - (row.cells[metric].half ?? 0), row.cells[metric].mean + (row.cells[metric].half ?? 0)]);
  const narrow = width < 480;
  const left = narrow ? 12 : Math.min(width * 0.45, 20 + Math.max(...rows.map((row) => state.nameOf(row).length)) * 6.2);
  const step = narrow ? 40 : 24;
  const plot = axes(width, rows.length * step + 66, { title: metric, domain: domainOf(values, false) }, { title: "", domain: [rows.length, 0] }, { left, top: 14, bottom: 46 });
  // The vertical axis has names, not numbers.
  plot.svg.querySelectorAll("text").forEach((text) => text.getAttribute("text-anchor") === "end" && text.remove());
  rows.forEach((row, i) => {
    const y = plot.Y(i + 0.5) + (narrow ? 6 : 0);
    const { mean, half, values: own, runs } = row.cells[metric];
    const { colour, shape } = state.look.get(row.method);
    const position = narrow ? { x: left + 4, y: y - 14 } : { x: left - 6, y: y + 4, "text-anchor": "end" };
    plot.svg.append(label(position.x, position.y, cut(state.nameOf(row), Math.floor((narrow ? width : left) / 6.2)), { ...position, "font-size": 11 }));
    if (half > 0) plot.svg.append(s("path", { d: `M${plot.X(mean - half)} ${y} H${plot.X(mean + half)}`, stroke: "#57606a", "stroke-width": 1.5 }));
    plot.svg.append(s("path", { d: `M${plot.X(mean)} ${y - 8} v16`, stroke: "#1b1f24", "stroke-width": 2 }));
    const marks = own.map((value, at) => ({
      element: s("g", { class: "mark" }, marker(shape, plot.X(value), y, 4.5, colour)),
      open: () => state.open(row), text: `${rowName(row)}, seed ${state.data.runs[runs[at]].seed}: ${number(value)}`,
    }));
    plot.svg.append(...marks.map((mark) => mark.element));
    reachable(marks);
  });
  return plot.svg;
}

// The runs whose learning curves belong to the rows shown, each once.
function runsWithCurves(state) {
  const seen = new Map();
  for (const row of state.shown) {
    for (const cell of Object.values(row.cells)) {
      for (const index of cell.runs) {
        const run = state.data.runs[index];
        if (Object.keys(run.history).length && !seen.has(index)) seen.set(index, { run, method: row.method, row });
      }
    }
  }
  return [...seen.values()];
}

function drawCurves(state, width, tag) {
  const lines = runsWithCurves(state).filter(({ run }) => run.history[tag]).slice(0, MOST_LINES);
  if (!lines.length) return null;
  const points = lines.map(({ run }) => { const [x, y] = run.history[tag]; return x.map((step, i) => [step, y[i]]).filter(([, value]) => value !== null); });
  const flat = points.flat();
  const values = flat.map(([, value]) => value);
  const log = wide(values);
  const plot = axes(width, Math.min(400, Math.max(260, width * 0.58)),
    { title: "epochs done", domain: domainOf(flat.map(([step]) => step), false) },
    { title: log ? `${tag}, logarithmic` : tag, domain: domainOf(values, log), log });
  lines.forEach(({ run, method }, i) => {
    if (!points[i].length) return;
    const { colour, dash } = state.look.get(method);
    const d = points[i].map(([step, value], at) => `${at ? "L" : "M"}${plot.X(step).toFixed(1)} ${plot.Y(value).toFixed(1)}`).join(" ");
    const [step, value] = points[i][0];
    plot.svg.append(s("path", { class: "curve", d, fill: "none", stroke: colour, "stroke-width": 1.7, "stroke-dasharray": dash }, s("title", {}, words(run.run_id))));
    if (points[i].length === 1) plot.svg.append(marker("circle", plot.X(step), plot.Y(value), 4, colour));
  });
  legend(plot, [...new Set(lines.map(({ method }) => method))].sort(), state.look, true);
  return plot.svg;
}
