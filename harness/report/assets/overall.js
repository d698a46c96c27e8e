// Entrants over several data sets: numbers with intervals, who beats whom, performance profiles.

function drawOverall(width, found, name) {
  const estimates = found.estimates[name];
  if (!estimates) return null;
  const values = estimates.flatMap(({ value, low, high }) => [value, low, high]).filter((value) => value !== null);
  const narrow = width < 480;
  const left = narrow ? 12 : Math.min(width * 0.45, 20 + Math.max(...found.entrants.map((entrant) => entrant.length)) * 6.2);
  const step = narrow ? 40 : 24;
  const plot = axes(width, found.entrants.length * step + 66, { title: found.statistics[name], domain: domainOf(values, false) },
    { title: "", domain: [found.entrants.length, 0] }, { left, top: 14, bottom: 46 });
  plot.svg.querySelectorAll("text").forEach((text) => text.getAttribute("text-anchor") === "end" && text.remove());
  const look = looks(found.entrants);
  found.entrants.forEach((entrant, i) => {
    const y = plot.Y(i + 0.5) + (narrow ? 6 : 0);
    const { value, low, high } = estimates[i];
    const { colour, shape } = look.get(entrant);
    const position = narrow ? { x: left + 4, y: y - 14 } : { x: left - 6, y: y + 4, "text-anchor": "end" };
    plot.svg.append(label(position.x, position.y, cut(entrant, Math.floor((narrow ? width : left) / 6.2)), { ...position, "font-size": 11 }));
    if (low !== null) plot.svg.append(s("path", { d: `M${plot.X(low)} ${y} H${plot.X(high)}`, stroke: "#57606a", "stroke-width": 1.5 }));
    const bounds = low === null ? "" : `, ${low.toPrecision(3)} to ${high.toPrecision(3)}`;
    plot.svg.append(s("g", { class: "mark" }, marker(shape, plot.X(value), y, 4.5, colour), s("title", {}, `${entrant}: ${value.toPrecision(4)}${bounds}`)));
  });
  return plot.svg;
}

function drawImprovement(width, found) {
  const count = found.entrants.length;
  const left = Math.min(width * 0.35, 20 + Math.max(...found.entrants.map((entrant) => entrant.length)) * 6.2);
  const [cell, height] = [(width - left - 10) / count, 26];
  const [top, total] = [12, 12 + count * 26 + 56];
  const svg = s("svg", { xmlns: SVG, viewBox: `0 0 ${width} ${total}`, width, height: total, role: "group" }, s("rect", { width, height: total, fill: "#fff" }));
  found.improvement.forEach((line, i) => {
    svg.append(label(left - 6, top + i * height + 17, cut(found.entrants[i], Math.floor(left / 6.2)), { "text-anchor": "end", "font-size": 11 }));
    line.forEach((bounded, j) => {
      if (!bounded) return;
      const { value, low, high } = bounded;
      const blend = (light, dark) => Math.round(light + (dark - light) * value);
      const bounds = low === null ? "" : ` (${low.toFixed(2)} to ${high.toFixed(2)})`;
      const text = cell < 96 ? value.toFixed(2) : value.toFixed(2) + bounds;
      svg.append(s("g", { class: "mark" },
        s("rect", { x: left + j * cell, y: top + i * height, width: cell - 1.5, height: height - 1.5, fill: `rgb(${blend(247, 8)},${blend(251, 48)},${blend(255, 107)})` }),
        label(left + (j + 0.5) * cell, top + i * height + 17, text, { "text-anchor": "middle", "font-size": cell < 44 ? 9 : 11, fill: value > 0.5 ? "#fff" : "#1b1f24" }),
        s("title", {}, `${found.entrants[i]} over ${found.entrants[j]}: ${value.toFixed(3)}${bounds}`)));
    });
  });
  found.entrants.forEach((entrant, j) => svg.append(label(left + (j + 0.5) * cell, top + count * height + 16, cut(entrant, Math.max(3, Math.floor(cell / 6.4))), { "text-anchor": "middle", "font-size": 11 })));
  svg.append(label(left + (width - left) / 2, total - 12, "probability that a run of the row beats one of the column", { "text-anchor": "middle", "font-size": 11 }));
  return svg;
}

function drawProfile(width, found, profile) {
  const look = looks(found.entrants);
  const plot = axes(width, Math.min(400, Math.max(260, width * 0.58)),
    { title: profile.title.includes("multiple") ? "multiple of the least distance" : "normalised score", domain: [profile.levels[0], profile.levels.at(-1)] },
    { title: "share", domain: [0, 1.02] });
  const path = (points, close) => points.map(([x, y], at) => `${at ? "L" : "M"}${plot.X(x).toFixed(1)} ${plot.Y(y).toFixed(1)}`).join(" ") + (close ? " Z" : "");
  found.entrants.forEach((entrant, i) => {
    const { colour, dash } = look.get(entrant);
    const points = (row) => profile.levels.map((level, at) => [level, row[i][at]]);
    if (profile.low[i][0] !== null) {
      plot.svg.append(s("path", { d: path([...points(profile.high), ...points(profile.low).reverse()], true), fill: colour, "fill-opacity": 0.12, stroke: "none" }));
    }
    plot.svg.append(s("path", { class: "curve", d: path(points(profile.shares), false), fill: "none", stroke: colour, "stroke-width": 1.7, "stroke-dasharray": dash }, s("title", {}, entrant)));
  });
  legend(plot, found.entrants, look, true);
  return plot.svg;
}

// The section of all tasks with several data sets; `add` makes a figure that is drawn anew with the others.
function overallSection(data, add) {
  if (!data.overall.length) return null;
  const chosen = { found: data.overall[0], name: Object.keys(data.overall[0].statistics)[0], profile: 0 };
  const numbers = add("overall", "Each entrant over all data sets of the task, with intervals over seeds.", (width) => drawOverall(width, chosen.found, chosen.name));
  const pairs = add("improvement", "The probability that a run of one beats a run of the other on a data set drawn at random.", (width) => drawImprovement(width, chosen.found));
  const profile = add("profile", "Performance profiles: the higher the line, the better. Bands are intervals over seeds, each level by itself.",
    (width) => chosen.found.profiles[chosen.profile] && drawProfile(width, chosen.found, chosen.found.profiles[chosen.profile]));
  const [choices, notes] = [h("div", {}), h("ul", { class: "notes" })];
  const choose = (found) => {
    Object.assign(chosen, { found, name: Object.keys(found.statistics)[0], profile: 0 });
    choices.replaceChildren(controls(
      choice("Statistic", Object.entries(found.statistics), chosen.name, (value) => { chosen.name = value; numbers.redraw(); }),
      choice("Profile", found.profiles.map(({ title }, i) => [i, title]), 0, (value) => { chosen.profile = Number(value); profile.redraw(); })));
    notes.replaceChildren(...found.notes.map((note) => h("li", {}, note)));
    for (const each of [numbers, pairs, profile]) each.redraw();
  };
  const tasks = data.overall.map((found, i) => [i, words(found.task, found.datasets.join(", "))]);
  const part = section("over-data-sets", "Over data sets",
    controls(choice("Task", tasks, 0, (value) => choose(data.overall[value]))), choices, numbers, pairs, profile, notes);
  choose(data.overall[0]);
  return part;
}
