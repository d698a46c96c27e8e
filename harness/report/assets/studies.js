// Searches: their trials in order, what each field did, which fields mattered, and what was best.

const TRIAL_LOOKS = new Map([["finished", { colour: "#0072b2", shape: "circle", dash: "" }], ["pruned", { colour: "#e69f00", shape: "cross", dash: "" }],
  ["failed", { colour: "#d55e00", shape: "triangle", dash: "" }], ["partial", { colour: "#cc79a7", shape: "plus", dash: "" }], ["best so far", { colour: "#1b1f24", shape: "circle", dash: "" }]]);
const CHARACTER = 6.2; // width of one in the names beside an axis

const trialText = (study, trial) => `trial ${trial.trial}, ${trial.status}: ${study.metric} ${number(trial.value)}; ${study.varied.map((name, i) => `${name}=${trial.settings[i]}`).join(", ")}`;
const setting = (value) => (typeof value === "number" ? short(value) : String(value ?? "–"));

function trialMark(state, study, trial, x, y) {
  const { shape, colour } = TRIAL_LOOKS.get(trial.status);
  return { element: s("g", { class: "mark" }, marker(shape, x, y, 5.5, colour)), open: () => openRun(state.data, trial.run), text: trialText(study, trial) };
}

function addMarks(plot, study, marks, trials) {
  plot.svg.append(...marks.map((mark) => mark.element));
  reachable(marks);
  legend(plot, [...new Set(trials.map((trial) => trial.status))], TRIAL_LOOKS);
  return plot.svg;
}

const hasValue = (trial) => trial.value !== null && trial.value !== undefined;

function drawStudy(state, width, study) {
  const valued = study.trials.filter(hasValue);
  if (!valued.length) return null;
  const plot = axes(width, Math.min(380, Math.max(260, width * 0.55)),
    { title: "trial", domain: domainOf(study.trials.map((trial) => trial.trial), false) }, { title: study.metric, domain: domainOf(valued.map((trial) => trial.value), false) });
  let best = null;
  let path = "";
  for (const trial of valued.filter((trial) => trial.status === "finished")) {
    if (best !== null && study.better * (trial.value - best) <= 0) continue;
    path += best === null ? `M${plot.X(trial.trial)} ${plot.Y(trial.value)}` : ` H${plot.X(trial.trial)} V${plot.Y(trial.value)}`;
    best = trial.value;
  }
  if (path) plot.svg.append(s("path", { class: "best", d: `${path} H${width - plot.right}`, fill: "none", stroke: "#1b1f24", "stroke-width": 1.6 }));
  const lost = study.trials.filter((trial) => !hasValue(trial));
  const marks = [...valued, ...lost].map((trial) => trialMark(state, study, trial, plot.X(trial.trial), hasValue(trial) ? plot.Y(trial.value) : plot.height - plot.bottom - 6));
  return addMarks(plot, study, marks, study.trials);
}

// What one field was set to, against the value of each trial. Texts get positions of their own, in order.
function drawSlice(state, width, study, field) {
  const index = study.varied.indexOf(field);
  const valued = study.trials.filter((trial) => hasValue(trial) && trial.settings[index] !== null && trial.settings[index] !== undefined);
  if (!valued.length) return null;
  const settings = valued.map((trial) => trial.settings[index]);
  const numeric = settings.every((value) => typeof value === "number");
  const names = numeric ? null : [...new Set(settings.map(String))].sort(byNumberInName);
  const log = numeric && wide(settings);
  const plot = axes(width, Math.min(380, Math.max(260, width * 0.55)),
    { title: log ? `${field}, logarithmic` : field, domain: numeric ? domainOf(settings, log) : [0, names.length], log, names },
    { title: study.metric, domain: domainOf(valued.map((trial) => trial.value), false) });
  const at = (value) => (numeric ? value : names.indexOf(String(value)) + 0.5);
  return addMarks(plot, study, valued.map((trial) => trialMark(state, study, trial, plot.X(at(trial.settings[index])), plot.Y(trial.value))), valued);
}

function drawImportances(width, study, metric) {
  const pairs = study.search?.importances[metric] ?? [];
  if (!pairs.length) return null;
  const names = pairs.map(([name]) => name);
  const left = Math.min(width * 0.45, 20 + Math.max(...names.map((name) => name.length)) * CHARACTER);
  const plot = axes(width, pairs.length * 26 + 60, { title: `importance for ${metric} (PED-ANOVA)`, domain: [0, Math.max(...pairs.map(([, value]) => value)) * 1.06 || 1] },
    { title: "", domain: [pairs.length, 0], names }, { left });
  pairs.forEach(([name, value], i) => plot.svg.append(s("rect", { class: "bar", x: left, y: plot.Y(i) + 5, width: Math.max(plot.X(value) - left, 0), height: 16, fill: COLOURS[0] },
    s("title", {}, `${name}: ${number(value)}`))));
  return plot.svg;
}

const smallTable = (name, titles, rows) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, h("table", {},
  h("thead", {}, h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)))), h("tbody", {}, rows.map((cells) => h("tr", {}, cells)))));

const trialButton = (state, study, trial) => h("th", { scope: "row" }, trial ? h("button", { type: "button", class: "row", onclick: () => openRun(state.data, trial.run) }, String(trial.trial)) : "–");

function studyTable(state, study) {
  const ordered = [...study.trials].sort((a, b) => (a.status !== "finished") - (b.status !== "finished") || (a.value === null) - (b.value === null) || study.better * (b.value - a.value)).slice(0, 20);
  return smallTable("Best trials", ["trial", "status", study.metric, ...study.varied], ordered.map((trial) => [trialButton(state, study, trial),
    h("td", {}, trial.status), h("td", { class: "number" }, number(trial.value)), trial.settings.map((value) => h("td", {}, setting(value)))]));
}

// What the search may spend, what it did, and by which means.
function studySummary(study) {
  const { search } = study;
  const counts = [...groupBy(study.trials, (trial) => trial.status)].map(([status, trials]) => `${trials.length} ${status}`);
  const budget = search?.budget.trials ? `${search.budget.trials} trials` : search?.budget.device_hours ? `${short(search.budget.device_hours)} device hours` : "";
  return words(budget && `budget ${budget}`, counts.join(", "), search && typeof search.device_hours === "number" ? `${search.device_hours.toPrecision(3)} device hours spent` : "",
    search?.sampler && `sampler ${search.sampler}`, search?.pruner && search.pruner !== "none" ? `pruner ${search.pruner}` : "", search?.stopped);
}

// The configuration that the search chose; of several objectives all that no other beats in each.
function bestTable(state, study) {
  const best = study.search?.best ?? [];
  if (!best.length) return null;
  const title = best.length > 1 ? "Pareto front" : "Best configuration";
  const [metrics, fields] = [[...new Set(best.flatMap(({ values }) => Object.keys(values)))], [...new Set(best.flatMap(({ config }) => Object.keys(config)))]];
  const rows = best.map(({ trial, values, config }) => [trialButton(state, study, study.trials.find((own) => own.trial === trial)),
    metrics.map((metric) => h("td", { class: "number" }, number(values[metric]))), fields.map((field) => h("td", {}, Object.hasOwn(config, field) ? setting(config[field]) : "–"))]);
  return [h("h3", {}, title), smallTable(title, ["trial", ...metrics, ...fields], rows)];
}

// Everything about one study that is not drawn.
const studyTables = (state, study) => [h("p", { class: "soft", id: "study-summary" }, studySummary(study)), (study.search?.notes ?? []).map((note) => h("p", { class: "soft" }, note)), bestTable(state, study), h("h3", {}, "Best trials"), studyTable(state, study)].flat().filter(Boolean);
